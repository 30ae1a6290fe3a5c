"""The IAU block: CIAU and STIAU in one of three arrangements (IAUnet, sec. III-C, Table X)."""

# B batch, T frames, C channels, H W map, N parts

from __future__ import annotations

from typing import Literal

from torch import Tensor

from reidkit.models.blocks.base import Block
from reidkit.models.blocks.ciau import ChannelUpdate
from reidkit.models.blocks.stiau import PartExchange

Order = Literal["ciau-stiau", "stiau-ciau", "parallel"]


class IAU(Block):
    """Both branches around the same map; an exact identity at the start.

    Args:
        channel: CIAU's branch.
        part: STIAU's branch.
        order: one after the other, or both added to the input.
    """

    def __init__(
        self, *, channel: ChannelUpdate, part: PartExchange, order: Order = "ciau-stiau"
    ) -> None:
        super().__init__()
        self.order = order
        self.channel = channel
        self.part = part

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self.order == "parallel":
            residual, maps = self.part(x)
            return x + self.channel(x) + residual, maps
        if self.order == "ciau-stiau":
            x = x + self.channel(x)
        residual, maps = self.part(x)
        x = x + residual
        if self.order == "stiau-ciau":
            x = x + self.channel(x)
        return x, maps
