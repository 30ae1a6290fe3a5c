"""SCHP, Self-Correction for Human Parsing (Li et al., TPAMI 2020): the network and the test
procedure of `simple_extractor.py`.

The network is CE2P's (Ruan et al., AAAI 2019): a ResNet-101, a pyramid of pooled context, a branch
of edges, and a head that fuses them. Modules have the names of the published checkpoints. The
heads that only training reads are left out: `decoder.conv4`, `edge.conv4`, `edge.conv5`.
"""

# B batch, C classes, N side of the network's input, H W pixels of an image, h w a feature map

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.masks.labels import Labels
from reidkit.masks.parsers.base import Forward, Image, check_scales
from reidkit.masks.parsers.normalization import ActivatedBatchNorm
from reidkit.masks.parsers.resampling import (
    ScoreMap,
    aligned_axis,
    best_labels,
    warp_axis,
    warp_bytes,
)

MEAN = (0.406, 0.456, 0.485)
STD = (0.225, 0.224, 0.229)
"""Of ImageNet, in the order blue, green, red."""
SCALES: tuple[float, ...] = (1.0,)
MIRROR = False
"""Of the authors' test procedure."""


class Schp(nn.Module):
    """Images float32 [B, 3, N, N], BGR, normalised -> scores [B, C, n, n] of the fused head, with
    n = ceil(N / 4).

    Args:
        num_classes: 20 (LIP), 18 (ATR) or 7 (Pascal-Person-Part).
        width: channels of the stem; the published networks have 64, all others follow.
        blocks: per stage.
    """

    def __init__(
        self, num_classes: int, *, width: int = 64, blocks: Sequence[int] = (3, 4, 23, 3)
    ) -> None:
        super().__init__()
        self.conv1 = _conv(3, width, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, 2 * width, 3)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.layer1 = _stage(2 * width, width, blocks[0])
        self.layer2 = _stage(4 * width, 2 * width, blocks[1], stride=2)
        self.layer3 = _stage(8 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = _stage(16 * width, 8 * width, blocks[3], dilation=2)
        self.context_encoding = _ContextEncoding(32 * width, 8 * width)
        self.edge = _Edge((4 * width, 8 * width, 16 * width), 4 * width)
        self.decoder = _Decoder(8 * width, 4 * width, 3 * width // 4)
        self.fushion = nn.Sequential(  # the checkpoints' spelling
            *_conv_norm(16 * width, 4 * width),
            nn.Dropout2d(0.1),
            nn.Conv2d(4 * width, num_classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = F.relu(self.bn3(self.conv3(x)), inplace=True)
        x1 = self.layer1(F.max_pool2d(x, 3, stride=2, padding=1))  # [B, 256, N/4, N/4]
        x2 = self.layer2(x1)  # [B, 512, N/8, N/8]
        x3 = self.layer3(x2)  # [B, 1024, N/16, N/16]
        x4 = self.layer4(x3)  # [B, 2048, N/16, N/16]
        parsing = self.decoder(self.context_encoding(x4), x1)  # [B, 256, N/4, N/4]
        edges = self.edge(x1, x2, x3)  # [B, 768, N/4, N/4]
        scores: Tensor = self.fushion(torch.cat([parsing, edges], dim=1))
        return scores


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, planes: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, 4 * planes, 1)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != 4 * planes:
            self.downsample = nn.Sequential(
                _conv(inputs, 4 * planes, 1, stride=stride), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


class _ContextEncoding(nn.Module):
    """Averages over 1x1, 2x2, 3x3 and 6x6 bins beside the features themselves."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), *_conv_norm(inputs, outputs))
            for bins in (1, 2, 3, 6)
        )
        self.bottleneck = nn.Sequential(*_conv_norm(inputs + 4 * outputs, outputs, 3))

    def forward(self, x: Tensor) -> Tensor:
        pooled = [_resize(stage(x), x) for stage in self.stages]
        context: Tensor = self.bottleneck(torch.cat([*pooled, x], dim=1))
        return context


class _Decoder(nn.Module):
    def __init__(self, inputs: int, outputs: int, low: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_conv_norm(inputs, outputs))
        self.conv2 = nn.Sequential(*_conv_norm(outputs, low))
        self.conv3 = nn.Sequential(
            *_conv_norm(outputs + low, outputs), *_conv_norm(outputs, outputs)
        )

    def forward(self, context: Tensor, x1: Tensor) -> Tensor:
        wide = _resize(self.conv1(context), x1)
        features: Tensor = self.conv3(torch.cat([wide, self.conv2(x1)], dim=1))
        return features


class _Edge(nn.Module):
    def __init__(self, inputs: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Sequential(*_conv_norm(channels, outputs)) for channels in inputs
        )

    def forward(self, x1: Tensor, x2: Tensor, x3: Tensor) -> Tensor:
        edges = [self.conv1(x1), _resize(self.conv2(x2), x1), _resize(self.conv3(x3), x1)]
        return torch.cat(edges, dim=1)


def _conv(inputs: int, outputs: int, size: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (size - 1) // 2
    return nn.Conv2d(
        inputs, outputs, size, stride=stride, padding=padding, dilation=dilation, bias=False
    )


def _conv_norm(inputs: int, outputs: int, size: int = 1) -> tuple[nn.Module, nn.Module]:
    return _conv(inputs, outputs, size), ActivatedBatchNorm(outputs)


def _stage(
    inputs: int, planes: int, blocks: int, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        *(
            _Bottleneck(
                inputs if i == 0 else 4 * planes,
                planes,
                stride=stride if i == 0 else 1,
                dilation=dilation,
            )
            for i in range(blocks)
        )
    )


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


@dataclass(frozen=True, kw_only=True)
class SchpProcedure:
    """The test procedure of `simple_extractor.py`: the image, its aspect kept, is warped to the
    network's square input; the scores are warped back; the label is that of the highest score.

    `scales` and `mirror` are those of the authors' `evaluate.py`; `simple_extractor.py` has
    neither. `evaluate.py` then takes the labels in the network's square, we at the image's size.

    Attributes:
        size: side of the network's input: 473 for LIP, 512 for ATR and Pascal-Person-Part.
        swap: for each label, the one that replaces it in the mirrored image.
        scales: of the normalised input; scores are averaged over them.
        mirror: average with the scores of the mirrored input.
    """

    size: int
    swap: tuple[int, ...]
    scales: tuple[float, ...] = SCALES
    mirror: bool = MIRROR

    def averaged(self, scales: tuple[float, ...] | None, mirror: bool | None) -> Self:
        scales = SCALES if scales is None else scales
        check_scales(scales)
        return replace(self, scales=scales, mirror=MIRROR if mirror is None else mirror)

    def label_maps(
        self, images: Sequence[Image], forward: Forward, device: torch.device
    ) -> list[Labels]:
        """Labels uint8 [H, W] of RGB images uint8 [H, W, 3] of any sizes, in one batch."""
        squares = torch.stack([self._square(torch.tensor(image).to(device)) for image in images])
        x = _normalised(squares)  # [B, 3, N, N]
        scores = [self._scores(x, scale, forward) for scale in self.scales]
        return [
            best_labels([self._map_back(s[i], image.shape[:2]) for s in scores])
            for i, image in enumerate(images)
        ]

    def _square(self, image: Tensor) -> Tensor:
        """RGB uint8 [H, W, 3] -> [N, N, 3]; black outside the image."""
        H, W, _ = image.shape
        step = _step(H, W, self.size)
        centre = (self.size - 1) / 2
        offsets = ((side - 1) / 2 - centre * step for side in (H, W))
        rows, columns = (
            warp_axis(step, offset, new=self.size, old=side, is_row=is_row)
            for offset, side, is_row in zip(offsets, (H, W), (False, True), strict=True)
        )
        return warp_bytes(image, rows, columns)

    def _scores(self, x: Tensor, scale: float, forward: Forward) -> Tensor:
        """Scores [B, C, n, n] of the normalised input [B, 3, N, N] at one scale."""
        side = int(self.size * scale)
        if side != self.size:
            x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=True)
        if not self.mirror:
            return forward(x)
        plain, mirrored = forward(torch.cat([x, x.flip(3)])).chunk(2)
        return (plain + mirrored[:, list(self.swap)].flip(3)) / 2

    def _map_back(self, scores: Tensor, size: tuple[int, int]) -> ScoreMap:
        rows, columns = _inverse_maps(*size, self.size, scores.shape[-1])
        return ScoreMap(scores, rows.to(scores.device), columns.to(scores.device))


def _normalised(squares: Tensor) -> Tensor:
    """RGB uint8 [B, N, N, 3] -> BGR float32 [B, 3, N, N], channels last in memory."""
    mean, std = squares.new_tensor([MEAN, STD], dtype=torch.float32)
    normalised: Tensor = (squares.flip(3) / 255 - mean) / std
    return normalised.permute(0, 3, 1, 2)


def _step(H: int, W: int, size: int) -> float:
    """Pixels of the image per pixel of the square; an image of one pixel counts as two wide."""
    return max(H - 1, W - 1, 1) / (size - 1)


@lru_cache(maxsize=64)
def _inverse_maps(H: int, W: int, size: int, scores: int) -> tuple[Tensor, Tensor]:
    """float32 [H, n] and [W, n]: from scores n x n, enlarged to N x N with aligned corners, to the
    image; one linear map instead of two."""
    step = _step(H, W, size)
    enlarge = aligned_axis(scores, size).matrix
    rows, columns = (
        warp_axis(
            1 / step, (size - 1) / 2 - (side - 1) / 2 / step, new=side, old=size, is_row=is_row
        ).matrix
        for side, is_row in ((H, False), (W, True))
    )
    return (
        torch.from_numpy(rows @ enlarge).float(),
        torch.from_numpy(columns @ enlarge).float(),
    )
