"""Devices by name, `auto`, `cpu`, `cuda` or `cuda:N`, their number formats, and the CPU's cores."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidkit.errors import ConfigError, RuntimeMissing

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

USE_CPU = 'use --device cpu (in Python: device="cpu")'
"""Advice at the end of messages, for the command line and for Python."""

CPU_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
"""Files with the microseconds of processor time that a container may use in each period, and the
period: of cgroups 2 and 1."""

MIN_BF16_SIDE = 64
"""Pixels of an image's shorter side from which bf16 is right on CPUs with AMX."""


def usable_cores() -> int:
    """The number of cores that this process may use: of its affinity, and of the quota of its
    container (`docker run --cpus`)."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    for files in CPU_QUOTAS:
        try:
            quota, period = map(int, " ".join(file.read_text() for file in files).split())
        except (OSError, ValueError):  # no container of Linux, or "max"
            continue
        if quota > 0 and period > 0:  # -1: no quota
            cores = min(cores, max(1, quota // period))
    return cores


@functools.cache
def cuda_device_count() -> int:
    """Number of CUDA devices, by the driver itself: 0 without one. Imports no torch."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return 0
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def cuda_index(name: str) -> int | None:
    """The number of the CUDA device called `name`; None for the CPU. `auto` is CUDA where there is
    a device.

    Raises:
        ConfigError: if the name is unknown.
    """
    if name == "auto":
        name = "cuda" if cuda_device_count() else "cpu"
    kind, _, index = name.partition(":")
    if name != "cpu" and not (kind == "cuda" and (index.isdecimal() or name == "cuda")):
        raise ConfigError(f"unknown device {name!r}. Known: auto, cpu, cuda, cuda:N")
    return None if name == "cpu" else int(index or 0)


def check_device(name: str) -> None:
    """Passes if the driver has the device called `name`. Imports no torch.

    Raises:
        ConfigError: if the name is unknown.
        RuntimeMissing: if there is no such CUDA device.
    """
    index = cuda_index(name)
    if name == "auto" or index is None:
        return
    count = cuda_device_count()
    if index >= count:
        found = f"only {', '.join(f'cuda:{i}' for i in range(count))}" if count else "none"
        raise RuntimeMissing(
            f"device {name}: no such CUDA device, the driver found {found}. Check nvidia-smi, or "
            f"{USE_CPU}"
        )


def torch_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where available, and is logged.

    PyTorch then has no more threads than `usable_cores`: by itself it counts those of the host.

    Raises:
        RuntimeMissing: if PyTorch cannot use CUDA.
        ConfigError: if the name is unknown.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        log.info("device: %s", name)
    if name != "cpu" and name.partition(":")[0] != "cuda":
        raise ConfigError(f"unknown device {name!r}. Known: auto, cpu, cuda, cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        built = torch.version.cuda or "no CUDA"
        raise RuntimeMissing(
            f"device {name}: this PyTorch ({torch.__version__}, built with {built}) found no "
            f"CUDA device. Check nvidia-smi, or {USE_CPU}"
        )
    if usable_cores() < torch.get_num_threads():
        torch.set_num_threads(usable_cores())
    return torch.device(name)


def has_wrong_bf16(device: torch.device, input_size: tuple[int, int]) -> bool:
    """Whether bf16 convolutions may return uninitialised memory.

    oneDNN 3.13 with AMX does so for a 3x3 convolution of stride 2 on a map one or two cells wide
    (measured: a relative error of 1, different in every call; AVX512-BF16 is right). A side of
    64 pixels is four cells before the last stage.
    """
    if device.type != "cpu" or min(input_size) >= MIN_BF16_SIDE:
        return False
    return bool(_cpu_capabilities().get("amx_bf16"))


def _cpu_capabilities() -> Mapping[str, Any]:
    import torch

    found: Mapping[str, Any] = (
        torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    )
    return found


def has_native_bf16(device: torch.device) -> bool:
    """CUDA from Ampere on; CPUs with AMX or AVX512-BF16 matrix instructions."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_capability(device)[0] >= 8
    found = _cpu_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions of float32 are computed in float32 on CUDA too.

    By default, PyTorch rounds their inputs to TF32, which has the precision of float16, on GPUs
    from Ampere on. Embeddings would then be other ones than on a CPU, and depend on the GPU. Where
    the process has set `torch.backends.cudnn.conv.fp32_precision` itself, that stays.
    """
    from torch.backends import cudnn

    try:
        earlier = cudnn.allow_tf32
    except RuntimeError:  # this process has set cudnn.conv.fp32_precision, PyTorch's later name
        yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = earlier
