"""Horizontal stripes of the last feature map, each with its own classifier (PCB, PFSA)."""

# B batch, T frames, C channels, H W map, S stripes, R reduced channels

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.models.backbone import Backbone
from reidkit.models.blocks.base import at_least_float32, full_precision

STRIPES = 6


def cut_stripes(clip_map: Tensor, *, count: int = STRIPES) -> Tensor:
    """Average of each horizontal stripe, then over frames: [B, T, C, H, W] -> [B, C, S].

    Raises:
        ConfigError: if the map's height is not a multiple of `count`.
    """
    B, T, C, H, W = clip_map.shape
    if H % count:
        raise ConfigError(
            f"found a map {H} cells high, expected a multiple of {count} for its stripes. "
            f"Give images whose height is a multiple of {count * 16} pixels, e.g. 384x128"
        )
    return clip_map.reshape(B, T, C, count, H // count, W).mean((4, 5)).mean(1)


def check_stripes(backbone: Backbone, input_size: tuple[int, int], *, count: int = STRIPES) -> None:
    """Raises ConfigError if the map's height for that input size is not a multiple of `count`."""
    height = backbone.map_size(4, input_size)[0]
    if height % count:
        found = "x".join(str(size) for size in input_size)
        raise ConfigError(
            f"input size: found {found}, a map {height} cells high; {count} stripes need an input "
            f"height that is a multiple of {count * 16}, e.g. 384x128"
        )


def normalised_stripes(stripes: Tensor) -> Tensor:
    """L2-normalised stripes, concatenated: [B, C, S] -> float32 [B, S·C].

    In float32 or wider: the squared norm overflows float16. The frames of a clip are averaged
    before normalisation; the mean over several clips is taken after it, so it differs slightly from
    the embedding of one long clip.
    """
    with full_precision(stripes):
        return F.normalize(at_least_float32(stripes), dim=1).mT.flatten(1)


class StripeOutput(NamedTuple):
    """reduced [B, R, S]; part_logits, one [B, ids] per stripe; logits of the mean (or empty)."""

    reduced: Tensor
    part_logits: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]


class StripeHead(nn.Module):
    """Dropout, a shared 1x1 convolution, batch norm, ReLU, then separate linear classifiers.

    Args:
        channels: C.
        num_ids: training identities; 0 builds no classifier.
        parts: adds a classifier per stripe.
        whole: adds a classifier of the mean of the reduced stripes (PFSA's main loss).
        reduced: R.
        dropout: on the stripes, before the convolution.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_ids: int,
        parts: bool,
        whole: bool,
        reduced: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv1d(channels, reduced, 1, bias=False)
        self.norm = nn.BatchNorm1d(reduced)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")
        self.parts = nn.ModuleList(
            id_classifier(reduced, num_ids) for _ in range(STRIPES if num_ids and parts else 0)
        )
        self.whole = id_classifier(reduced, num_ids) if num_ids and whole else None

    def forward(self, stripes: Tensor) -> StripeOutput:
        """stripes [B, C, S]."""
        reduced = self.reduce(stripes)
        each = reduced.unbind(2)
        part_logits = tuple(
            classify(vector) for classify, vector in zip(self.parts, each, strict=False)
        )
        logits = () if self.whole is None else (self.whole(reduced.mean(2)),)
        return StripeOutput(reduced, part_logits, logits)

    def reduce(self, stripes: Tensor) -> Tensor:
        """[B, C, S] -> [B, R, S]."""
        return F.relu(self.norm(self.conv(self.dropout(stripes))))


def id_classifier(features: int, num_ids: int) -> nn.Linear:
    """Linear layer with weights from N(0, 0.001) and bias 0 (PFSA, PCB)."""
    layer = nn.Linear(features, num_ids)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)
    return layer
