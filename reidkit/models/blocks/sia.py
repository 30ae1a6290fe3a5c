"""SIA: each position aggregates similar and near positions (IANet, sec. 3.1)."""

# B batch, C channels, H W map, M = H·W positions

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models.blocks.base import FrameBlock, at_least_float32, full_precision, zero_norm
from reidkit.models.blocks.ciau import ChannelUpdate

Fusion = Literal["product", "sum", "max"]
Relations = Literal["semantic", "appearance", "location"]
Order = Literal["spatial-channel", "channel-spatial", "parallel"]


def location_prior(
    H: int, W: int, *, sigma_x: float, sigma_y: float, device: torch.device | None = None
) -> Tensor:
    """S^L (eq. 3, 4): a Gaussian around every position; rows sum to one. float32 [M, M].

    Args:
        sigma_x, sigma_y: horizontal and vertical standard deviation in map cells.
    """

    def gaps(size: int, sigma: float) -> Tensor:
        at = torch.arange(size, device=device, dtype=torch.float32)
        return ((at.unsqueeze(1) - at) / sigma).square() / 2

    down = gaps(H, sigma_y).reshape(H, 1, H, 1)
    across = gaps(W, sigma_x).reshape(1, W, 1, W)
    return (-(down + across)).reshape(H * W, H * W).softmax(-1)


def patch_products(products: Tensor, *, context: int, H: int, W: int) -> Tensor:
    """<f_i, f_j> summed over K x K patches around i and j (the exponent of eq. 1).

    Every summand is one of `products` at jointly shifted positions, so no further multiplication is
    needed (sec. 4.3). The paper specifies neither the padding nor the anchor of even patches: the
    map is zero-padded, and K = 2 covers the offsets 0 and 1.

    Args:
        products: [B, M, M].
        context: K.
    """
    if context == 1:
        return products
    grid = products.reshape(-1, H, W, H, W)
    before, after = (context - 1) // 2, context // 2
    down = F.pad(grid, (0, 0, before, after, 0, 0, before, after))
    grid = _sum(down[:, d : d + H, :, d : d + H] for d in range(context))
    across = F.pad(grid, (before, after, 0, 0, before, after))
    grid = _sum(across[:, :, d : d + W, :, d : d + W] for d in range(context))
    return grid.reshape(products.shape)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return functools.reduce(operator.add, terms)


class SpatialUpdate(nn.Module):
    """The residual branch BN(F Sᵀ), initially zero.

    Args:
        channels: C.
        contexts: patch sizes K; the relation maps of several contexts are fused (eq. 2).
        fusion: operation F that fuses them, and appearance with location (eq. 5).
        relations: "semantic" fuses appearance and location; Table 4c compares each alone.
        sigmas: (horizontal, vertical) standard deviation of the location prior, in map cells.
        scaled: divides dot products by sqrt(C), as in the released code.
    """

    def __init__(
        self,
        channels: int,
        *,
        contexts: tuple[int, ...] = (1, 2, 3),
        fusion: Fusion = "product",
        relations: Relations = "semantic",
        sigmas: tuple[float, float] = (5.0, 10.0),
        scaled: bool = False,
    ) -> None:
        super().__init__()
        self.contexts = contexts
        self.fusion = fusion
        self.relations = relations
        self.sigmas = sigmas
        self.scaled = scaled
        self.norm = nn.BatchNorm2d(channels)
        zero_norm(self.norm)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[2:]
        with full_precision(x):
            nodes = at_least_float32(x).flatten(2)  # [B, C, M]
            context = nodes @ self.relation(nodes, H, W).mT
        residual: Tensor = self.norm(context.to(x.dtype).reshape(x.shape))
        return residual

    def relation(self, nodes: Tensor, H: int, W: int) -> Tensor:
        """S [B, M, M] of nodes [B, C, M], or [M, M] if it is the location prior alone.

        Row i is the receptive field of position i; it sums to one.
        """
        sigma_x, sigma_y = self.sigmas
        prior = location_prior(H, W, sigma_x=sigma_x, sigma_y=sigma_y, device=nodes.device)
        if self.relations == "location":
            return prior.to(nodes.dtype)
        appearance = self.appearance(self.single_contexts(nodes, H, W))
        if self.relations == "appearance":
            return appearance
        return self._fuse([appearance, prior]).softmax(-1)

    def single_contexts(self, nodes: Tensor, H: int, W: int) -> list[Tensor]:
        """The appearance relation of each patch size (eq. 1), [B, M, M] each."""
        products = nodes.mT @ nodes
        if self.scaled:
            products = products / math.sqrt(nodes.shape[1])
        return [
            patch_products(products, context=context, H=H, W=W).softmax(-1)
            for context in self.contexts
        ]

    def appearance(self, maps: list[Tensor]) -> Tensor:
        """S^A [B, M, M]: the relations of all patch sizes, fused (eq. 2)."""
        return maps[0] if len(maps) == 1 else self._fuse(maps).softmax(-1)

    def _fuse(self, maps: list[Tensor]) -> Tensor:
        fused = maps[0]
        for other in maps[1:]:
            if self.fusion == "product":
                fused = fused * other
            else:
                fused = fused + other if self.fusion == "sum" else torch.maximum(fused, other)
        return fused


class IA(FrameBlock):
    """SIA and CIA on the same feature map (eq. 9, Table 4d); initially the identity.

    Args:
        spatial: branch of SIA, or None.
        channel: branch of CIA, or None.
        order: sequential, or in parallel with both branches added to the input.
    """

    def __init__(
        self,
        *,
        spatial: SpatialUpdate | None,
        channel: ChannelUpdate | None,
        order: Order = "spatial-channel",
    ) -> None:
        super().__init__()
        self.order = order
        self.spatial = spatial
        self.channel = channel

    def frames(self, x: Tensor) -> Tensor:
        branches = self._branches()
        if self.order == "parallel":
            return x + _sum(branch(x) for branch in branches)
        for branch in branches:
            x = x + branch(x)
        return x

    def _branches(self) -> list[Callable[[Tensor], Tensor]]:
        branches: list[Callable[[Tensor], Tensor]] = []
        if self.spatial is not None:
            branches.append(self.spatial)
        if self.channel is not None:
            channel = self.channel  # each frame is a clip of one frame
            branches.append(lambda x: channel(x.unsqueeze(1)).squeeze(1))
        return branches[::-1] if self.order == "channel-spatial" else branches
