"""Non-local blocks, which the papers compare IAUnet and RGA with."""

# B batch, T frames, C channels, H W map, M = T·H·W positions

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.blocks.base import (
    Block,
    at_least_float32,
    full_precision,
    split_frames,
    zero_norm,
)


class NonLocal(Block):
    """Wang et al., CVPR 2018: embedded Gaussian over all positions of a clip, without subsampling.

    Initially the identity (zero-initialised batch norm, as published).

    Args:
        channels: C.
        reduction: ratio of C to the channels of theta, phi and g; 2 gives IAUnet's Table VI.
    """

    def __init__(self, channels: int, *, reduction: int = 2) -> None:
        super().__init__()
        inner = channels // reduction
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        zero_norm(self.norm)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        B, T, _, H, W = x.shape
        frames = x.flatten(0, 1)
        with full_precision(x):
            context = F.scaled_dot_product_attention(
                self._nodes(self.theta, frames, B, T),
                self._nodes(self.phi, frames, B, T),
                self._nodes(self.g, frames, B, T),
                scale=1.0,
            )
        context = context.reshape(B * T, H * W, -1).mT.unflatten(2, (H, W))  # type: ignore[no-untyped-call]  # torch's stub
        residual = self.norm(self.out(context.to(x.dtype)))
        return x + split_frames(residual, B, T), ()

    def relation(self, x: Tensor) -> Tensor:
        """The weights of the aggregation: [B, M, M], float32 or wider; rows sum to one.

        `forward` never holds them in memory.
        """
        B, T = x.shape[:2]
        frames = x.flatten(0, 1)
        with full_precision(x):
            theta, phi = (self._nodes(conv, frames, B, T) for conv in (self.theta, self.phi))
            return (theta @ phi.mT).softmax(-1).squeeze(1)

    def _nodes(self, conv: nn.Module, frames: Tensor, B: int, T: int) -> Tensor:
        """[B·T, C, H, W] -> embedded positions [B, 1, M, inner], float32 or wider."""
        embedded = at_least_float32(conv(at_least_float32(frames)))
        return split_frames(embedded, B, T).transpose(1, 2).flatten(2).mT.unsqueeze(1)


class SimplifiedNonLocal(Block):
    """Cao et al. 2019 (GCNet), sec. 3.2: one context vector for all positions.

    y = x + BN(W_v sum_j softmax_j(W_k x) x_j), zero-initialised like the non-local block.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(channels, 1, 1)
        self.value = nn.Linear(channels, channels)
        self.norm = nn.BatchNorm1d(channels)
        zero_norm(self.norm)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        B, T = x.shape[:2]
        logits = split_frames(self.key(x.flatten(0, 1)), B, T).transpose(1, 2).flatten(2)
        with full_precision(x):
            weights = at_least_float32(logits).softmax(-1)  # [B, 1, M]
            nodes = at_least_float32(x).transpose(1, 2).flatten(2)  # [B, C, M]
            context = (weights @ nodes.mT).squeeze(1)  # [B, C]
            residual = self.norm(self.value(context)).to(x.dtype)
        return x + residual[:, None, :, None, None], ()
