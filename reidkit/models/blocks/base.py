"""Base classes of blocks, the precision of their relations, and initialisation."""

# B batch, T frames, C channels, H W map, P parts

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Block(nn.Module, ABC):
    """A module between two units of a backbone; it keeps the shape of its input."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x [B, T, C, H, W] -> the same shape, and attention maps over parts, each
        [B, T, P, H, W] in [0, 1] (empty for most blocks)."""


class FrameBlock(Block):
    """A block that processes each frame independently."""

    @abstractmethod
    def frames(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> the same shape."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        B, T = x.shape[:2]
        return split_frames(self.frames(x.flatten(0, 1)), B, T), ()


def split_frames(x: Tensor, B: int, T: int) -> Tensor:
    """[B·T, ...] -> [B, T, ...]."""
    return x.reshape(B, T, *x.shape[1:])


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Disables autocast: dot products of whole feature maps overflow float16."""
    device = x.device.type  # autocast does not exist on "meta"
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; other types unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def masked_softmax(logits: Tensor, allowed: Tensor) -> Tensor:
    """Softmax over the allowed entries of the last axis.

    Masked with the lowest finite number instead of -inf: a row without any allowed entry becomes
    uniform, not NaN.
    """
    return logits.masked_fill(~allowed, torch.finfo(logits.dtype).min).softmax(-1)


def init_conv(module: nn.Conv2d | nn.Linear) -> None:
    """IAUnet's initialisation of 1x1 convolutions: weight N(0, sqrt(2 / C_out)), default bias."""
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def zero_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Scale and shift 0: the residual branch that this layer ends is initially zero."""
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
