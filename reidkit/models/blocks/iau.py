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
    """Both residual branches on the same feature map; initially the identity.

    Args:
        channel: branch of CIAU.
        part: branch of STIAU.
        order: sequential, or in parallel with both branches added to the input.
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
