# reidkit for the CPU (default) or CUDA; docs/install.md describes how to build and run it.
#
#   docker build -t reidkit .
#   docker build -t reidkit:cuda --build-arg VARIANT=cuda .
ARG VARIANT=cpu

FROM python:3.11-slim AS python
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

FROM python AS torch-cpu
RUN pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu

# CUDA needs no other base image: the wheels of torch and onnxruntime-gpu bring its libraries.
FROM python AS torch-cuda
RUN pip install torch torchvision

FROM torch-${VARIANT}
ARG VARIANT
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY data_manifests data_manifests
COPY reidkit reidkit
# Without a GPU, onnxruntime replaces onnxruntime-gpu and the CUDA libraries it depends on.
RUN if [ "$VARIANT" = cpu ]; then \
        sed -i 's/onnxruntime-gpu\[cuda,cudnn\]/onnxruntime/' pyproject.toml; \
    fi \
    && pip install .

# Any user may write to the volumes, for `docker run --user`.
RUN useradd --create-home --uid 1000 reidkit \
    && mkdir -p /data /cache/torch /work/masks /work/runs \
    && chmod -R a+rwX /data /cache /work
USER reidkit
# TORCH_HOME: downloaded ImageNet weights. MPLCONFIGDIR: a cache that any user may write to.
ENV REIDKIT_DATA=/data \
    TORCH_HOME=/cache/torch \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /work
VOLUME ["/data", "/cache/torch", "/work/masks", "/work/runs"]
ENTRYPOINT ["reidkit"]
CMD ["--help"]
