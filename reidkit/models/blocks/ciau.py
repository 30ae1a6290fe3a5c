"""CIAU: each channel aggregates similar channels (IAUnet, sec. III-B; IANet's CIA)."""

# B batch, T frames, C channels, H W map

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.blocks.base import (
    Block,
    at_least_float32,
    full_precision,
    init_conv,
    split_frames,
    zero_norm,
)

ChannelRelation = Literal["dot", "l2"]


def related_channels(x: Tensor) -> Tensor:
    """softmax(X Xᵀ) X with X the [T·C, H·W] matrix of a clip (eq. 11, 12).

    Neither scaled nor projected, so the products are large and the softmax is nearly one-hot, which
    needs float32 or wider. Attention with scale 1 is the same function, and PyTorch's kernels
    compute it without the [T·C, T·C] matrix in memory.

    Args:
        x: [B, T, C, H, W].
    Returns:
        the same shape, float32 or wider.
    """
    with full_precision(x):
        nodes = at_least_float32(x).flatten(3).flatten(1, 2).unsqueeze(1)  # [B, 1, T·C, H·W]
        context = F.scaled_dot_product_attention(nodes, nodes, nodes, scale=1.0)
        return context.reshape(x.shape)


def related_channels_l2(x: Tensor) -> Tensor:
    """The same with the relation -||f_i - f_j|| instead of the dot product (Table IX, CIAU-L2)."""
    with full_precision(x):
        nodes = at_least_float32(x).flatten(3).flatten(1, 2)  # [B, T·C, H·W]
        squares = nodes.square().sum(-1)
        gap = squares.unsqueeze(2) + squares.unsqueeze(1) - 2 * nodes @ nodes.mT
        # the gradient of the square root is infinite at 0
        distance = gap.clamp_min(torch.finfo(gap.dtype).eps).sqrt()
        return ((-distance).softmax(-1) @ nodes).reshape(x.shape)


def channel_relation(
    x: Tensor, rows: Sequence[int], *, relation: ChannelRelation = "dot"
) -> Tensor:
    """Rows of the relation C that the functions above aggregate by (eq. 11): each sums to one.

    Args:
        x: [B, T, C, H, W].
        rows: of the [T·C, T·C] matrix; channel c of frame t is row t·C + c.
    Returns:
        [B, rows, T·C], float32 or wider.
    """
    with full_precision(x):
        nodes = at_least_float32(x).flatten(3).flatten(1, 2)  # [B, T·C, H·W]
        chosen = nodes[:, list(rows)]
        if relation == "dot":
            logits = chosen @ nodes.mT
        else:
            gap = chosen.unsqueeze(2) - nodes.unsqueeze(1)  # [B, rows, T·C, H·W]
            logits = -torch.linalg.vector_norm(gap, dim=-1)
        return logits.softmax(-1)


class ChannelUpdate(nn.Module):
    """The residual branch BN(conv(softmax(X Xᵀ) X)), initially zero.

    Args:
        channels: C.
        relation: "dot" (eq. 11) or "l2".
        update: applies IAUnet's 1x1 convolution (eq. 13); IANet's CIA has none.
    """

    def __init__(
        self, channels: int, *, relation: ChannelRelation = "dot", update: bool = True
    ) -> None:
        super().__init__()
        self.relation = relation
        self.update = nn.Conv2d(channels, channels, 1) if update else nn.Identity()
        self.norm = nn.BatchNorm2d(channels)
        if isinstance(self.update, nn.Conv2d):
            init_conv(self.update)
        zero_norm(self.norm)

    def forward(self, x: Tensor) -> Tensor:
        B, T = x.shape[:2]
        context = related_channels(x) if self.relation == "dot" else related_channels_l2(x)
        residual: Tensor = self.norm(self.update(context.to(x.dtype).flatten(0, 1)))
        return split_frames(residual, B, T)


class CIAU(Block):
    """Y = BN(E) + X (eq. 14) with the branch `ChannelUpdate`."""

    def __init__(
        self, channels: int, *, relation: ChannelRelation = "dot", update: bool = True
    ) -> None:
        super().__init__()
        self.channel = ChannelUpdate(channels, relation=relation, update=update)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x + self.channel(x), ()
