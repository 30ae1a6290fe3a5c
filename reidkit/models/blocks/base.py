"""What stands between two units of a trunk, and the precision relations are computed in."""

# B batch, T frames, C channels, H W map, P parts

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Block(nn.Module, ABC):
    """Keeps the shape of what passes through it."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x [B, T, C, H, W] to the same shape, and attention maps over parts, each
        [B, T, P, H, W] in [0, 1] (empty for most blocks)."""


class FrameBlock(Block):
    """A block that treats every frame by itself."""

    @abstractmethod
    def frames(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to the same shape."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        B, T = x.shape[:2]
        return split_frames(self.frames(x.flatten(0, 1)), B, T), ()


def split_frames(x: Tensor, B: int, T: int) -> Tensor:
    """[B·T, ...] -> [B, T, ...]."""
    return x.reshape(B, T, *x.shape[1:])


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Switches autocast off: dot products of whole feature maps overflow float16."""
    device = x.device.type  # "meta" knows no autocast
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """Half precisions become float32; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def masked_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Softmax over the last axis among the allowed entries.

    Filled with the smallest finite number, not -inf: a row in which nothing is allowed becomes
    uniform instead of NaN.
    """
    return logits.masked_fill(~allowed, torch.finfo(logits.dtype).min).softmax(-1)


def init_conv(module: nn.Conv2d | nn.Linear) -> None:
    """IAUnet's start of a 1x1 convolution: weight N(0, sqrt(2 / C_out)), bias as PyTorch has it."""
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def zero_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Scale and shift 0: a residual branch that ends here starts as nothing."""
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
