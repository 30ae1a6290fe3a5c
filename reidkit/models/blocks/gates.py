"""Channel and spatial gates, which the papers compare IAUnet and RGA with: SE, CBAM, FC."""

# B batch, T frames, C channels, H W map, N = H·W positions

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.models.blocks.base import Block, FrameBlock

GateName = Literal["cbam-s", "cbam-c", "cbam-cs", "fc-s", "fc-c", "fc-s//c"]


class SE(Block):
    """Squeeze-and-excitation (Hu et al., CVPR 2018) with biases; averages over the whole clip.

    Args:
        channels: C.
        reduction: 16 as published and in IAUnet's Table VI.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        inner = channels // reduction
        self.excite = nn.Sequential(
            nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        scale = self.excite(x.mean((1, 3, 4)))
        return x * scale[:, None, :, None, None], ()


class CBAMChannel(nn.Module):
    """CBAM-C (Woo et al., ECCV 2018): a shared MLP on average-pooled and max-pooled features."""

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        inner = channels // reduction
        self.shared = nn.Sequential(
            nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, C, 1, 1]."""
        scale = torch.sigmoid(self.shared(x.mean((2, 3))) + self.shared(x.amax((2, 3))))
        return scale[:, :, None, None]


class CBAMSpatial(nn.Module):
    """CBAM-S: a 7x7 convolution on the average and maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, 1, H, W]."""
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return torch.sigmoid(self.norm(self.conv(pooled)))


class FCChannel(nn.Module):
    """FC-C (RGA, Table 2, after Liu et al. 2019): embedding, spatial average, one fully connected
    layer (sec. 4.2; the number of parameters in Table 3 agrees)."""

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        inner = channels // reduction
        self.embed = _embedding(channels, inner)
        self.dense = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, C, 1, 1]."""
        return torch.sigmoid(self.dense(self.embed(x).mean((2, 3))))[:, :, None, None]


class FCSpatial(nn.Module):
    """FC-S (RGA, Table 2): embedding, mean over channels, fully connected layers over positions.

    Args:
        channels: C.
        positions: N; the weights depend on it, so the input size is fixed.
    """

    def __init__(self, channels: int, *, positions: int, reduction: int = 8) -> None:
        super().__init__()
        self.embed = _embedding(channels, channels // reduction)
        self.positions = positions
        self.dense = nn.Sequential(
            nn.Linear(positions, positions // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(positions // reduction, positions, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, 1, H, W]."""
        pooled = self.embed(x).mean(1).flatten(1)  # [B, N]
        if pooled.shape[1] != self.positions:
            raise ConfigError(
                f"FC-S: found a map of {pooled.shape[1]} positions, expected {self.positions}. "
                "Use images of the size that the network was built for"
            )
        gate: Tensor = torch.sigmoid(self.dense(pooled))
        return gate.reshape(-1, 1, *x.shape[2:])


def _embedding(channels: int, inner: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU, as RGA's embedding functions."""
    return nn.Sequential(
        nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
    )


class Gate(FrameBlock):
    """Multiplies a map by channel attention, then by spatial attention, or by their mean.

    Args:
        channel: [B, C, H, W] -> [B, C, 1, 1], or None.
        spatial: [B, C, H, W] -> [B, 1, H, W], or None.
        parallel: both attentions are computed from the input, and the two modulated maps are
            averaged (the paper does not specify its fusion).
    """

    def __init__(
        self, *, channel: nn.Module | None, spatial: nn.Module | None, parallel: bool = False
    ) -> None:
        super().__init__()
        self.channel = channel
        self.spatial = spatial
        self.parallel = parallel

    def frames(self, x: Tensor) -> Tensor:
        if self.parallel and self.channel is not None and self.spatial is not None:
            both: Tensor = self.channel(x) + self.spatial(x)
            return x * both / 2
        for attention in (self.channel, self.spatial):
            if attention is not None:
                x = x * attention(x)
        return x


def build_gate(name: GateName, channels: int, *, positions: int, reduction: int) -> Gate:
    """The gate called `name` for a map of `channels` channels and `positions` positions."""
    family, _, kind = name.partition("-")
    channel: nn.Module | None = None
    spatial: nn.Module | None = None
    if "c" in kind:
        channel = (CBAMChannel if family == "cbam" else FCChannel)(channels, reduction=reduction)
    if "s" in kind:
        spatial = (
            CBAMSpatial()
            if family == "cbam"
            else FCSpatial(channels, positions=positions, reduction=reduction)
        )
    return Gate(channel=channel, spatial=spatial, parallel="//" in kind)
