"""Devices by name: `auto`, `cpu`, `cuda` or `cuda:N`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from reidkit.errors import ConfigError, RuntimeMissing

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def torch_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where available, and is logged.

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
            f"--device {name}: this PyTorch ({torch.__version__}, built with {built}) found no "
            "CUDA device. Check nvidia-smi, or use --device cpu"
        )
    return torch.device(name)
