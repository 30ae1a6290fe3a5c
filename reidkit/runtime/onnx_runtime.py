"""Embedding models in ONNX files, exported by reidkit or by others, in ONNX Runtime."""

# B batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.choices import Provider
from reidkit.device import cuda_index
from reidkit.errors import CheckpointError, DataError
from reidkit.files import sha256
from reidkit.preprocess import Preprocess
from reidkit.runtime.denormals import denormals_as_zero
from reidkit.runtime.execution import Execution
from reidkit.runtime.onnx_binding import DeviceBinding, run_options
from reidkit.runtime.onnx_contract import MAX_DIMENSION, OnnxContract, read_contract
from reidkit.runtime.onnx_session import PROVIDERS, cpu_nodes, open_session, session_errors

log = logging.getLogger(__name__)

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


_TITLES: Mapping[Provider, str] = {
    "cpu": "CPU",
    "cuda": "CUDA",
    "tensorrt": "TensorRT",
    "openvino": "OpenVINO",
}

BOUND_DEVICES: Mapping[Provider, str] = {"cuda": "cuda", "tensorrt": "cuda"}
"""ONNX Runtime's device of the providers that are run in buffers of their own memory."""

CALLERS = 2
"""Threads that run such a session at once in throughput mode: one copies while one computes."""

MIN_IMAGES = 8
"""Images of a batch from which several threads normalise them, half as many at a time."""

THREAD_IMAGES = 4
"""Images or frames that a thread of its own computes at once on the CPU: more at once are slower by
up to 5 %, since what they need does not stay in the core's cache."""

MIN_GRAPH_COSINE = 0.9999
"""Bound on the cosine of an embedding by a CUDA graph with the same one without."""


class OnnxEmbedder:
    """An ONNX file with one image input and an embedding output; see `embedder.Embedder`.

    The input is [B, 3, H, W] or [B, H, W, 3], and [B, T, 3, H, W] in reidkit's exports of video
    networks. Where the batch size is fixed in the file, batches are padded to it, and on CUDA to
    the next power of two, so that cuDNN meets few shapes.

    On CUDA, in latency mode, a file of fixed batch size is run as a CUDA graph where all of its
    nodes are there.

    Attributes:
        description: provider, threads and precision in one line.
        binding: runs the session in buffers on its device; None: the provider takes arrays.

    Raises:
        CheckpointError: if the file is not such a model.
        ConfigError: if `inputs` contradict the file, or the device is unknown.
        RuntimeMissing: if the device or the provider is not available.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        inputs: Mapping[str, Any] | None = None,
        execution: Execution | None = None,
    ) -> None:
        execution = execution or Execution()
        cores = execution.cores
        throughput = execution.mode == "throughput"
        # Several callers with one thread each; other providers have threads of their own.
        threads = 1 if throughput and execution.provider in (None, "cpu") else cores
        self.path = path
        self.buffers = threading.local()
        self.dimension = 0  # until the first run
        with tempfile.TemporaryDirectory(prefix="reidkit-") as folder:
            self.session = open_session(
                path, device, provider=execution.provider, threads=threads, profile=Path(folder)
            )
            self.provider = _provider_of(self.session)
            on_cpu = self.provider == "cpu"
            self.concurrency = 1
            if throughput and (on_cpu or self.provider in BOUND_DEVICES):
                self.concurrency = cores if on_cpu else CALLERS
            # Threads share the normalisation of a batch, unless each has a batch of its own
            busy = cores == 1 or (on_cpu and throughput)
            self._pool = None if busy else ThreadPoolExecutor(cores)
            with session_errors(path, "cannot read what it takes and gives"):
                self.contract: OnnxContract = read_contract(self.session, path, inputs or {})
            self.preprocess = self.contract.preprocess
            self.name, self.frames = self.contract.name, self.contract.frames
            self.precision = self.contract.precision
            self.source_hash = sha256(path)
            self.dtype = _DTYPES[self.contract.input_type]
            self._index = cuda_index(device) or 0
            self.binding = self._bind(cuda_graph=False)
            shape = (1, *([self.frames] if self.frames else []), *self.preprocess.size, 3)
            image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            self.embed(image)
            fallbacks = Counter() if on_cpu else cpu_nodes(self.session)
        if fallbacks:
            log.warning(
                "%s: %d nodes run on the CPU, not in the %s provider: %s",
                *(path, fallbacks.total(), _TITLES[self.provider]),
                ", ".join(f"{count} {op}" for op, count in fallbacks.most_common()),
            )
        elif self.provider == "cuda" and self.contract.fixed_batch and not throughput:
            self._capture(image, device)
        self.description = self._description(cores)

    def _bind(self, *, cuda_graph: bool) -> DeviceBinding | None:
        if self.provider not in BOUND_DEVICES:
            return None
        return DeviceBinding(
            self.session,
            self.contract.input,
            self.contract.output,
            device=BOUND_DEVICES[self.provider],
            index=self._index,
            callers=self.concurrency,
            graph=cuda_graph,
        )

    def _capture(self, image: NDArray[np.uint8], device: str) -> None:
        """Replaces the session by one that replays a CUDA graph, if that gives the embedding of
        `image` as well; otherwise the log says why not."""
        expected = self.embed(image)[0]
        plain = self.session, self.binding
        try:
            self.session = open_session(self.path, device, provider="cuda", cuda_graph=True)
            self.binding = self._bind(cuda_graph=True)
            self.embed(image)  # the first run of a shape shows its output, the second one captures
            self.embed(image)
            found = self.embed(image)[0]
        except CheckpointError as error:
            reason = str(error)
        else:
            norms = float(np.linalg.norm(found) * np.linalg.norm(expected))
            cosine = float(found @ expected) / norms if norms else 1.0
            if cosine >= MIN_GRAPH_COSINE:
                return
            reason = f"{self.path}: cosine {cosine:.4f} with the embedding without it"
        log.info("no CUDA graph: %s", reason)
        self.session, self.binding = plain

    def _description(self, cores: int) -> str:
        import onnxruntime as ort

        parts = [f"ONNX Runtime {ort.__version__}, {_TITLES[self.provider]}"]
        if self.provider in ("cpu", "openvino"):
            threads = f"{cores} thread{'s' if cores > 1 else ''}"
            parts.append(threads if self.concurrency == 1 else f"{threads} with a batch each")
        if self.binding is not None and self.binding.graph:
            parts.append(f"CUDA graph of {self.contract.fixed_batch}")
        if self.precision:
            parts.append(self.precision)
        return f"{self.name}: {', '.join(parts)}"

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [B, H, W, 3], or clips [B, T, H, W, 3] -> float32 [B, D], the file's output as it
        is; [0, D] for an empty batch.

        Where the file takes clips of one length only, an image is repeated to that length.

        Raises:
            DataError: if clips have another length than the file takes.
            CheckpointError: if the model fails, or its output is not one embedding per image, of
                one length and of finite numbers.
        """
        if len(pixels) == 0:
            return np.empty((0, self.dimension), np.float32)
        T = self.contract.fixed_frames
        if T and pixels.shape[1] == 1:
            pixels = np.repeat(pixels, T, axis=1)
        elif T and pixels.shape[1] != T:
            raise DataError(
                f"{self.path} takes clips of {T} frames, or single images, which are repeated; "
                f"found clips of {pixels.shape[1]}"
            )
        step = self.contract.fixed_batch or self._step(pixels)
        parts = [self._run(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(wrong):
            raise CheckpointError(
                f"{self.path}: embedding {wrong[0]} of a batch of {len(rows)} has values that are "
                f"not finite ({len(wrong)} of {len(rows)} have). Export the model again, in fp32 "
                "if it is fp16"
            )
        return rows

    def _step(self, pixels: NDArray[np.uint8]) -> int:
        """Images or clips that one run takes."""
        if self.provider != "cpu" or self.concurrency == 1:
            return len(pixels)
        frames = pixels.shape[1] if pixels.ndim == 5 else 1
        return max(1, THREAD_IMAGES // frames)

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        B = len(pixels)
        array = self._input(pixels)
        contract = self.contract
        with session_errors(self.path, f"failed on an input of shape {list(array.shape)}"):
            if self.binding is not None:
                found = self.binding.run(array)
            else:
                feed = {contract.input: array}
                with denormals_as_zero():
                    (found,) = self.session.run([contract.output], feed, run_options())
        self._check(found, len(array))
        rows: NDArray[np.float32] = found.reshape(len(array), -1)[:B].astype(np.float32)
        return rows

    def _check(self, found: Any, batch: int) -> None:
        shape = list(found.shape) if isinstance(found, np.ndarray) else []
        flat = len(shape) >= 2 and all(size == 1 for size in shape[2:])
        if not shape or found.dtype.kind != "f" or not flat or shape[0] != batch or shape[1] == 0:
            what = f"{found.dtype} {shape}" if shape else type(found).__name__
            raise CheckpointError(
                f"{self.path}: output {self.contract.output} is {what} for {batch} images, "
                "expected one embedding per image, float [batch, D]"
            )
        self.dimension = self.dimension or shape[1]
        if shape[1] > MAX_DIMENSION:
            raise CheckpointError(
                f"{self.path}: embeddings have {shape[1]:,} numbers, expected at most "
                f"{MAX_DIMENSION:,}. Choose another output: --output NAME"
            )
        if shape[1] != self.dimension:
            raise CheckpointError(
                f"{self.path}: embeddings have {shape[1]} numbers in one batch and "
                f"{self.dimension} in another, expected one length"
            )

    def _input(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """The array for the session, of the file's batch size, layout, type and range."""
        contract = self.contract
        batch = contract.fixed_batch or self._bucket(len(pixels))
        array = self._buffer((batch, *pixels.shape[1:]))
        flat = array.reshape(-1, *array.shape[-3:])
        images = flat.transpose(0, 3, 1, 2) if contract.channels_last else flat  # [B*T, 3, H, W]
        source = pixels.reshape(-1, *pixels.shape[-3:])
        if contract.normalisation is None:
            np.copyto(images[: len(source)], source.transpose(0, 3, 1, 2))
        else:
            self._normalise(contract.normalisation, source, images[: len(source)])
        images[len(source) :] = images[len(source) - 1]
        return array if array.dtype == self.dtype else array.astype(self.dtype)

    def _normalise(
        self,
        preprocess: Preprocess,
        pixels: NDArray[np.uint8],
        images: NDArray[np.float32],
    ) -> None:
        """`Preprocess.normalise_into`, by several threads where they are free."""
        if self._pool is None or len(pixels) < MIN_IMAGES:
            preprocess.normalise_into(pixels, images)
            return
        chunks = len(pixels) // (MIN_IMAGES // 2)
        parts = (np.array_split(array, chunks) for array in (pixels, images))
        list(self._pool.map(preprocess.normalise_into, *parts))

    def _bucket(self, batch: int) -> int:
        """The next power of two on CUDA, so that few shapes occur."""
        return batch if self.binding is None else 1 << (batch - 1).bit_length()

    def _buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """This thread's input buffer for pixels [B, ..., H, W, 3] in the layout of the file."""
        if not self.contract.channels_last:
            shape = (*shape[:-3], shape[-1], *shape[-3:-1])
        dtype = np.uint8 if self.dtype is np.uint8 else np.float32
        buffer = getattr(self.buffers, "input", None)
        if buffer is None or buffer.shape[1:] != shape[1:] or len(buffer) < shape[0]:
            buffer = self.buffers.input = np.empty(shape, dtype)
        found: NDArray[Any] = buffer[: shape[0]]
        return found


def _provider_of(session: Any) -> Provider:
    first = session.get_providers()[0]
    return next(name for name, full in PROVIDERS.items() if full == first)
