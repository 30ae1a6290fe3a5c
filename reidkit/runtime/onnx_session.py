"""ONNX Runtime sessions: execution providers, errors, and the nodes that run on the CPU."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reidkit.choices import Provider
from reidkit.device import USE_CPU, cuda_device_count, cuda_index
from reidkit.errors import CheckpointError, ConfigError, RuntimeMissing
from reidkit.files import check_regular
from reidkit.runtime.denormals import denormals_as_zero

log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"

PROVIDERS: Mapping[Provider, str] = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}

_PACKAGES: Mapping[Provider, str] = {
    "cpu": "onnxruntime",
    "cuda": "'onnxruntime-gpu[cuda,cudnn]'",
    "tensorrt": "'onnxruntime-gpu[cuda,cudnn]' tensorrt",
    "openvino": "onnxruntime-openvino",
}
"""What pip installs for each; only one of them at a time, since all contain onnxruntime."""


def open_session(
    path: Path,
    device: str = "auto",
    *,
    provider: Provider | None = None,
    threads: int | None = None,
    profile: Path | None = None,
    cuda_graph: bool = False,
) -> Any:
    """An ONNX Runtime session that really runs where it is meant to.

    Its threads do not spin while they wait, so that images can be decoded beside it. A run that
    fails in a provider is not repeated in another one, as ONNX Runtime does by default.

    Args:
        device: auto, cpu, cuda or cuda:N; auto is CUDA where there is a device and ONNX Runtime
            has the provider.
        provider: None is CUDA's or the CPU's, as `device` says.
        threads: number of threads of one run; None: ONNX Runtime's choice.
        profile: folder for a profile of the first runs (`cpu_nodes`); not used on the CPU.
        cuda_graph: prepare the CUDA provider for CUDA graphs (`onnx_binding.DeviceBinding`).

    Raises:
        CheckpointError: if the file is missing or cannot be loaded; with `cuda_graph` also if CUDA
            graphs cannot run it: it has nodes on the CPU, or control flow.
        ConfigError: if the device is unknown or has no such provider.
        RuntimeMissing: if the provider is not there, or ONNX Runtime cannot load it.
    """
    import onnxruntime as ort

    check_model_file(path)
    requested = f"provider {provider}" if provider else f"device {device}"
    provider, index = choose_provider(device, provider, ort.get_available_providers())
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None and provider != "cpu":
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "session")
    if provider in ("cuda", "tensorrt"):
        if index >= cuda_device_count():
            raise RuntimeMissing(
                f"{requested}: the driver found {cuda_device_count()} CUDA devices. Check "
                f"nvidia-smi, or {USE_CPU}"
            )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints to stdout
            ort.preload_dlls()
    missing = RuntimeMissing(
        f"{requested}: ONNX Runtime could not load its {provider} provider. Run: pip uninstall -y "
        f"onnxruntime && pip install {_PACKAGES[provider]}. Or {USE_CPU}"
    )
    # The threads that the session starts inherit it. Its own setting would leave it on in this one.
    with session_errors(path, "cannot load it"), denormals_as_zero():
        try:
            session = ort.InferenceSession(
                path,
                options,
                providers=_with_fallbacks(provider, index, threads, path, cuda_graph=cuda_graph),
                enable_fallback=0,
            )
        except RuntimeError as error:  # TensorRT's, where its libraries are missing
            if provider == "cpu":
                raise
            raise missing from error
    if PROVIDERS[provider] not in session.get_providers():  # CUDA's, then
        raise missing
    return session


def check_model_file(path: Path) -> None:
    """Raises CheckpointError unless there is a regular file at `path`."""
    check_regular(path, CheckpointError)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Export a checkpoint: reidkit export --onnx")


def choose_provider(
    device: str, provider: Provider | None, available: list[str]
) -> tuple[Provider, int]:
    """The provider for a device, and the device's number.

    Args:
        provider: the one requested, if any.
        available: those of the installed ONNX Runtime.
    Raises:
        ConfigError: if the device is unknown or the provider does not run on it.
        RuntimeMissing: if the installed ONNX Runtime has no such provider.
    """
    index = cuda_index(device)
    if provider is None:
        provider = "cpu" if index is None else "cuda"
        if device == "auto" and PROVIDERS[provider] not in available:
            log.warning(
                "this ONNX Runtime has no CUDA provider; using the CPU. For CUDA, run: "
                "pip uninstall -y onnxruntime && pip install %s",
                _PACKAGES["cuda"],
            )
            return "cpu", 0
    if PROVIDERS[provider] not in available:
        raise RuntimeMissing(
            f"this ONNX Runtime has no {provider} provider, only "
            f"{', '.join(name for name, full in PROVIDERS.items() if full in available)}. "
            f"Run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install "
            f"{_PACKAGES[provider]}"
        )
    needs_cuda = provider in ("cuda", "tensorrt")
    if needs_cuda and index is None:
        found = "there is none" if device == "auto" else f"found device {device}"
        raise ConfigError(f"provider {provider} needs a CUDA device; {found}")
    if not needs_cuda and device.startswith("cuda"):
        raise ConfigError(f"provider {provider} does not run on device {device}")
    return provider, index or 0


def _with_fallbacks(
    provider: Provider, index: int, threads: int | None, path: Path, *, cuda_graph: bool
) -> list[Any]:
    """Providers in order of preference, with their options."""
    cuda_options: dict[str, Any] = {
        "device_id": index,
        # cuDNN's default tries every algorithm for every new shape; its heuristic costs nothing.
        "cudnn_conv_algo_search": "HEURISTIC",
        "enable_cuda_graph": cuda_graph,
        # Its default, TF32 on GPUs from Ampere on, has the precision of float16.
        "use_tf32": False,
    }
    cuda = (PROVIDERS["cuda"], cuda_options)
    if provider == "cuda":
        return [cuda, CPU]
    options: dict[str, Any]
    if provider == "tensorrt":
        cache = Path.home() / ".cache" / "reidkit" / "tensorrt" / path.stem
        cache.mkdir(parents=True, exist_ok=True)
        options = {
            "device_id": index,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": True,
        }
        return [(PROVIDERS["tensorrt"], options), cuda, CPU]
    if provider == "openvino":
        # OpenVINO's own default is bf16 where the processor has it, which changes embeddings; its
        # provider in ONNX Runtime 1.24 has float32 as default.
        options = {"device_type": "CPU", "precision": "FP32"}
        if threads is not None:
            options["num_of_threads"] = str(threads)
        return [(PROVIDERS["openvino"], options), CPU]
    return [CPU]


MAX_DETAIL = 200
"""Characters of ONNX Runtime's own text in a message."""

_NODE = re.compile(r"while running (?P<op>\w+) node\. Name:'(?P<name>[^']*)' Status Message: (.*)")


@contextlib.contextmanager
def session_errors(path: Path, what: str) -> Iterator[None]:
    """Reports ONNX Runtime's errors as a CheckpointError about `path`.

    Args:
        what: failed, such as "cannot load it".
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: ONNX Runtime {what}: a name in it is not UTF-8") from error
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        # Those of its C++ that have no class in Python, such as of memory, are RuntimeError itself
        if type(error) is not RuntimeError and not type(error).__module__.startswith("onnxruntime"):
            raise
        raise CheckpointError(f"{path}: {_reason(str(error), what)}") from error


def _reason(text: str, what: str) -> str:
    """The first line of ONNX Runtime's text, in our words as far as we know them."""
    line = text.strip().splitlines()[0]
    if "protobuf" in line.lower():
        return "it is not an ONNX file, or a damaged one. Copy or export it again"
    operator = re.search(r"(\S+?)\(-?\d+\) is not a registered function/op", line)
    if operator is not None:
        return (
            f"it needs the operator {operator[1]}, which ONNX Runtime does not have. Export it "
            "with operators of ONNX only"
        )
    if re.search("external data", line, re.IGNORECASE):
        found = re.search(r'"([^"]+)"', line)
        file = f" {found[1]}" if found else ""
        return (
            f"it refers to weights{file} that are missing or outside its folder, which ONNX "
            "Runtime does not read. Copy them next to it as it was exported, or save it as one file"
        )
    node = _NODE.search(line)
    if node is not None:
        # Without the C++ source location that the message begins with
        detail = re.sub(r"^/\S+?:\d+ .*?(was false\. |\. (?=[A-Z]))", "", node[3])
        name = f"{node['op']} node {node['name']}".strip()
        return f"ONNX Runtime {what}: {name} failed: {detail[:MAX_DETAIL]}"
    return f"ONNX Runtime {what}: {line.rpartition(' : ')[2][:MAX_DETAIL]}"


def cpu_nodes(session: Any) -> Counter[str]:
    """Ends a session's profile and counts, by type, the nodes that ran on the CPU."""
    profile = Path(session.end_profiling())
    events = json.loads(profile.read_text())
    profile.unlink()
    kernels = {
        (event["name"], event["args"]["op_name"])
        for event in events
        if event["name"].endswith("_kernel_time") and event["args"].get("provider") == CPU
    }
    return Counter(op for _, op in kernels)
