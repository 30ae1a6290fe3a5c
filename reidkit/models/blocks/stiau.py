"""STIAU: body parts exchange information within and between frames (IAUnet, sec. III-A).

An image is a clip of one frame, so SIAU is STIAU with T = 1. Where paper and released code differ,
this follows the code: batch norm before the attention's sigmoid, parts by sum, one shared reduction
of parts and global vector, batch norm and ReLU in the part update.
"""

# B batch, T frames, C channels, H W map, N parts, R = C/2 reduced channels, F = B·T frames

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.blocks.base import (
    Block,
    at_least_float32,
    full_precision,
    init_conv,
    masked_softmax,
    split_frames,
    zero_norm,
)

PartRelation = Literal["sub-network", "l2"]
PartPooling = Literal["sum", "mean"]
Interaction = Literal["spatial-temporal", "spatial", "temporal"]


def neighbours(
    T: int, N: int, *, interaction: Interaction, device: torch.device | None = None
) -> Tensor:
    """Adjacency of the T·N nodes (index t·N + n): bool [T·N, T·N] (eq. 3).

    Spatial neighbours are other parts of the same frame, temporal neighbours the same part in other
    frames, so a node has N + T - 2 neighbours (the paper counts one more).
    """
    node = torch.arange(T * N, device=device)
    frame, part = node // N, node % N
    same_frame = frame.unsqueeze(1) == frame
    same_part = part.unsqueeze(1) == part
    spatial = same_frame & ~same_part
    temporal = ~same_frame & same_part
    if interaction == "spatial":
        return spatial
    return temporal if interaction == "temporal" else spatial | temporal


class PartAttention(nn.Module):
    """Part division: one attention map per body part, and the features under each (eq. 8, 9).

    Args:
        channels: C.
        parts: N, in the order of the masks that supervise them.
        pooling: "sum" as in the released code, or "mean" as in eq. 9 (divided by H·W).
    """

    def __init__(self, channels: int, *, parts: int = 4, pooling: PartPooling = "sum") -> None:
        super().__init__()
        self.pooling = pooling
        self.conv = nn.Conv2d(channels, parts, 1)
        self.norm = nn.BatchNorm2d(parts)
        init_conv(self.conv)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x [F, C, H, W] -> parts [F, N, C] and maps [F, N, H, W]."""
        maps = torch.sigmoid(self.norm(self.conv(x)))
        with full_precision(x):
            flat = at_least_float32(x).flatten(2)
            parts = at_least_float32(maps).flatten(2) @ flat.mT  # [F, N, HW] @ [F, HW, C]
            return (parts / flat.shape[2] if self.pooling == "mean" else parts), (maps,)


class PatchDivision(nn.Module):
    """Means of four equal patches, for objects without body parts (sec. IV-A, CIFAR-100)."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x [F, C, H, W] -> parts [F, 4, C] in raster order, and no maps."""
        return F.adaptive_avg_pool2d(at_least_float32(x), (2, 2)).flatten(2).mT, ()


class PartRelations(NamedTuple):
    """What `PartExchange` computes on the way to its residual.

    Attributes:
        parts: features of the parts before the exchange, reduced [B, T·N, R] (P of Fig. 2).
        whole: features of the clip, reduced [B, R].
        logits: relations of all pairs of parts [B, T·N, T·N] (eq. 1, 2).
        weights: relation map [B, T·N, T·N] (eq. 4): rows sum to one, 0 where nodes are no
            neighbours.
        updated: features of the parts after the exchange [B, T·N, R].
        maps: attention maps of the part division, each [B·T, N, H, W].
    """

    parts: Tensor
    whole: Tensor
    logits: Tensor
    weights: Tensor
    updated: Tensor
    maps: tuple[Tensor, ...]


class PartExchange(nn.Module):
    """The residual branch of STIAU, one vector per frame, initially zero.

    Args:
        channels: C.
        division: [F, C, H, W] -> parts [F, N, C] and maps.
        relation: "sub-network" (eq. 1, 2) or "l2", the negative distance of two parts (Table IX).
        interaction: neighbours that exchange information (Table VIII).
    """

    def __init__(
        self,
        channels: int,
        *,
        division: nn.Module,
        relation: PartRelation = "sub-network",
        interaction: Interaction = "spatial-temporal",
    ) -> None:
        super().__init__()
        R = channels // 2
        self.interaction = interaction
        self.division = division
        self.reduce = nn.Linear(channels, R)
        self.relation = nn.Linear(2 * R, 1) if relation == "sub-network" else None
        self.relation_norm = nn.BatchNorm2d(1) if relation == "sub-network" else None
        self.part_update = nn.Linear(2 * R, R)
        self.part_norm = nn.BatchNorm1d(R)
        self.frame_update = nn.Linear(2 * R, channels)
        self.frame_norm = nn.BatchNorm1d(channels)
        for layer in (self.reduce, self.relation, self.part_update, self.frame_update):
            if layer is not None:
                init_conv(layer)
        zero_norm(self.frame_norm)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x [B, T, C, H, W] -> the residual [B, T, C, 1, 1] and maps, each [B, T, N, H, W]."""
        B, T = x.shape[:2]
        found = self.exchange(x)
        with full_precision(x):
            R = found.whole.shape[1]
            frame = found.updated.reshape(B, T, -1, R).mean(2)  # [B, T, R]
            whole = found.whole.unsqueeze(1).expand_as(frame)
            joined = torch.cat((frame, whole), 2)  # [B, T, 2R = C]
            residual = self.frame_norm(self.frame_update(joined.flatten(0, 1)))
        residual = split_frames(residual.to(x.dtype), B, T)[..., None, None]
        return residual, tuple(split_frames(part_map, B, T) for part_map in found.maps)

    def exchange(self, x: Tensor) -> PartRelations:
        """x [B, T, C, H, W] -> the parts of all frames before and after they exchange features."""
        B, T = x.shape[:2]
        parts, maps = self.division(x.flatten(0, 1))
        with full_precision(x):
            whole = self.reduce(at_least_float32(x).mean((1, 3, 4)))  # [B, R]
            nodes = split_frames(self.reduce(parts), B, T).flatten(1, 2)  # [B, T·N, R]
            N = parts.shape[1]
            allowed = neighbours(T, N, interaction=self.interaction, device=x.device)
            logits = self._logits(nodes, whole)
            weights = masked_softmax(logits, allowed)
            pairs = torch.cat((nodes, weights @ nodes), 2).flatten(0, 1)  # [B·T·N, 2R]
            updated = F.relu(self.part_norm(self.part_update(pairs)))
        updated = updated.reshape(nodes.shape)
        return PartRelations(nodes, whole, logits, weights, updated, maps)

    def _logits(self, nodes: Tensor, whole: Tensor) -> Tensor:
        """Logits [B, T·N, T·N]. Batch norm includes the pairs that the mask excludes afterwards."""
        gap = nodes.unsqueeze(2) - nodes.unsqueeze(1)  # [B, T·N, T·N, R]
        if self.relation is None or self.relation_norm is None:
            distance: Tensor = torch.linalg.vector_norm(gap, dim=-1)
            return -distance
        # W [|p_i - p_j|, u] as two products, so that u is not copied for every pair
        R = whole.shape[1]
        of_pair = F.linear(gap.abs(), self.relation.weight[:, :R]).squeeze(-1)
        of_whole = F.linear(whole, self.relation.weight[:, R:], self.relation.bias)
        logits: Tensor = self.relation_norm((of_pair + of_whole.unsqueeze(2)).unsqueeze(1))
        return logits.squeeze(1)


class STIAU(Block):
    """Y = BN(E) + X (eq. 14) with the branch `PartExchange`, broadcast over positions."""

    def __init__(self, exchange: PartExchange) -> None:
        super().__init__()
        self.part = exchange

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        residual, maps = self.part(x)
        return x + residual, maps
