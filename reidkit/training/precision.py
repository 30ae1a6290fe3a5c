"""Which arithmetic a device does best, and how a network is laid out for it."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import nn

from reidkit.errors import ConfigError

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]

AUTOCAST: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def resolve_precision(asked: str, device: torch.device) -> Precision:
    """What "auto" means here: bf16 where the device multiplies it natively, else fp32.

    Never fp16: it needs loss scaling and is what breaks training in the field's issue threads.

    Raises:
        ConfigError: if the device cannot do what was asked.
    """
    if asked == "auto":
        chosen: Precision = "bf16" if has_native_bf16(device) else "fp32"
        if chosen == "bf16":
            log.info("precision: bf16 with losses in float32; --precision fp32 for float32 alone")
        return chosen
    if asked == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 training needs a CUDA device. Use --precision bf16 or fp32")
    assert asked in AUTOCAST, asked
    return asked  # type: ignore[return-value]  # a key of AUTOCAST


def has_native_bf16(device: torch.device) -> bool:
    """CUDA from Ampere on; CPUs with AMX or AVX512-BF16 matrix instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


def to_channels_last(model: nn.Module, device: torch.device) -> None:
    """Moves a network to its device, convolution weights with the channels last: the order that
    tensor cores and oneDNN's bf16 kernels compute in. Values and names stay."""
    model.to(device)
    model.to(memory_format=torch.channels_last)
