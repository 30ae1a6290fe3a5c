"""JPPNet (Liang et al., TPAMI 2018): the network and the test procedure of
`evaluate_parsing_JPPNet-s2.py`.

A ResNet-101 in Caffe's form with dilated last stages, and heads for human parsing and for pose that
refine each other twice. Only the parsing of the second refinement is an aim here, so its pose head
(`fc3_pose`) is left out; all other pose heads feed the parsing.
"""

# B batch, C classes, J joints, h w feature map (an eighth of the input), H W pixels of an image

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.masks.labels import Labels
from reidkit.masks.parsers.base import Forward, Image, check_scales
from reidkit.masks.parsers.resampling import ScoreMap, best_labels, resize, tensorflow1_axis

NUM_CLASSES = 20
NUM_JOINTS = 16
MEAN = (104.00698793, 116.66876762, 122.67891434)
"""Of the training images, in the order blue, green, red."""
DILATIONS = (6, 12, 18, 24)
"""Of the four convolutions whose sum scores the classes."""
SCALES: tuple[float, ...] = (1.0, 0.75, 1.25)
MIRROR = True
"""Of the authors' test procedure."""


class JppNet(nn.Module):
    """Images float32 [B, 3, H, W], BGR minus `MEAN` -> scores [B, C, H/8, W/8].

    `forward` gives the mean of the three parsing outputs, which the test procedure averages:
    resizing is linear.

    Args:
        width: channels of the stem; the published network has 64, all others follow.
        blocks: per stage.
    """

    def __init__(self, *, width: int = 64, blocks: Sequence[int] = (3, 4, 23, 3)) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            _SameConv(3, width, 7, stride=2, bias=False), nn.BatchNorm2d(width, eps=1e-3)
        )
        self.stage2 = _stage("2", width, width, blocks[0])
        self.stage3 = _stage("3", 4 * width, 2 * width, blocks[1], stride=2)
        self.stage4 = _stage("4", 8 * width, 4 * width, blocks[2], dilation=2)
        self.stage5 = _stage("5", 16 * width, 8 * width, blocks[3], dilation=4)
        self.fc1_human = _DilatedSum(32 * width, ("c0", "c1", "c2", "c3"))
        self.res5d = nn.ModuleDict(
            {
                "branch2a_parsing": _SameConv(32 * width, 8 * width, 3),
                "branch2b_parsing": _SameConv(8 * width, 4 * width, 3),
            }
        )
        self.fc1_pose = _Pose(16 * width, 4 * width)
        self.fc2_pose = _PoseRefinement(4 * width)
        self.fc2_parsing = _ParsingRefinement(4 * width)
        self.fc3_parsing = _ParsingRefinement(4 * width)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack(self.parsings(images)).mean(dim=0)

    def parsings(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores [B, C, H/8, W/8] before refinement and after the first and the second."""
        x = F.relu(self.conv1(images), inplace=True)
        x = F.max_pool2d(_pad_same(x, 3, stride=2, value=float("-inf")), 3, stride=2)
        r4 = self.stage4(self.stage3(self.stage2(x)))  # [B, 1024, h, w]
        r5 = self.stage5(r4)  # [B, 2048, h, w]
        parsing1 = self.fc1_human(r5)  # [B, C, h, w]
        y = r5
        for conv in self.res5d.values():
            y = F.relu(conv(y), inplace=True)  # [B, 256, h, w]
        pose1, pose_features = self.fc1_pose(r4)  # [B, J, h, w], [B, 256, h, w]
        pose2 = self.fc2_pose(pose1, parsing1, pose_features)
        parsing2, features = self.fc2_parsing(parsing1, pose1, y)
        parsing3, _ = self.fc3_parsing(parsing2, pose2, features)
        return parsing1, parsing2, parsing3


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: with a stride, the smaller half first."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        padding = dilation * (size - 1) // 2 if stride == 1 else 0
        super().__init__(
            inputs, outputs, size, stride=stride, padding=padding, dilation=dilation, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1 and self.kernel_size[0] > 1:
            x = _pad_same(x, self.kernel_size[0], stride=self.stride[0], value=0)
        return super().forward(x)


def _pad_same(x: Tensor, size: int, *, stride: int, value: float) -> Tensor:
    padding: list[int] = []
    for side in (x.shape[3], x.shape[2]):  # F.pad begins with the last axis
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding, value=value)


class _Bottleneck(nn.Module):
    """The stride is on the first convolution and on the shortcut, as in Caffe's ResNet."""

    def __init__(
        self, inputs: int, planes: int, *, stride: int, dilation: int, shortcut: bool
    ) -> None:
        super().__init__()
        outputs = 4 * planes
        self.branch1 = _conv_norm(inputs, outputs, 1, stride=stride) if shortcut else None
        self.branch2a = _conv_norm(inputs, planes, 1, stride=stride)
        self.branch2b = _conv_norm(planes, planes, 3, dilation=dilation)
        self.branch2c = _conv_norm(planes, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.branch2a(x), inplace=True)
        y = F.relu(self.branch2b(y), inplace=True)
        y = self.branch2c(y)
        y += x if self.branch1 is None else self.branch1(x)
        return F.relu(y, inplace=True)


class _DilatedSum(nn.ModuleDict):
    """Scores of the classes: the sum of four 3x3 convolutions of different dilation."""

    def __init__(self, inputs: int, names: Sequence[str]) -> None:
        super().__init__(
            {
                name: _SameConv(inputs, NUM_CLASSES, 3, dilation=dilation)
                for name, dilation in zip(names, DILATIONS, strict=True)
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([conv(x) for conv in self.values()]).sum(dim=0)


class _Pose(nn.Module):
    """Heat maps [B, J, h, w] of the joints, and the features [B, 256, h, w] that give them."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        channels = (inputs, 2 * width, 2 * width, width, width, width, width)
        for i, (before, after) in enumerate(itertools.pairwise(channels), start=1):
            self.add_module(f"pose_conv{i}", _SameConv(before, after, 3))
        self.pose_conv7 = _SameConv(width, 2 * width, 1)
        self.pose_conv8 = _SameConv(2 * width, NUM_JOINTS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for i in range(1, 7):
            x = F.relu(self.get_submodule(f"pose_conv{i}")(x), inplace=True)
        heat_maps: Tensor = self.pose_conv8(F.relu(self.pose_conv7(x), inplace=True))
        return heat_maps, x


class _PoseRefinement(nn.Module):
    """New heat maps from heat maps [B, J, h, w], scores [B, C, h, w] and features [B, 256, h, w]
    of the pose."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pose_remap = _SameConv(NUM_JOINTS, width // 2, 1)
        self.parsing_remap = _SameConv(NUM_CLASSES, width // 2, 1)
        self.conv1 = _SameConv(2 * width, 2 * width, 3)
        self.conv2 = _SameConv(2 * width, width, 5)
        self.conv3 = _SameConv(width, width, 7)
        self.conv4 = _SameConv(width, width, 9)
        self.conv5 = _SameConv(width, width, 1)
        self.conv6 = _SameConv(width, NUM_JOINTS, 1)

    def forward(self, pose: Tensor, parsing: Tensor, features: Tensor) -> Tensor:
        x = torch.cat(
            [F.relu(self.pose_remap(pose)), F.relu(self.parsing_remap(parsing)), features], dim=1
        )
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            x = F.relu(conv(x), inplace=True)
        heat_maps: Tensor = self.conv6(x)
        return heat_maps


class _ParsingRefinement(nn.Module):
    """New scores and features from scores [B, C, h, w], heat maps [B, J, h, w] and features
    [B, 256, h, w] of the parsing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pose_remap = _SameConv(NUM_JOINTS, width // 2, 1)
        self.parsing_remap = _SameConv(NUM_CLASSES, width // 2, 1)
        self.parsing_conv1 = _SameConv(2 * width, 2 * width, 3)
        self.parsing_conv2 = _SameConv(2 * width, width, 5)
        self.parsing_conv3 = _SameConv(width, width, 7)
        self.parsing_conv4 = _SameConv(width, width, 9)
        self.parsing_conv5 = _SameConv(width, width, 1)
        self.parsing_human = _DilatedSum(width, ("1", "2", "3", "4"))

    def forward(self, parsing: Tensor, pose: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat(
            [F.relu(self.parsing_remap(parsing)), F.relu(self.pose_remap(pose)), features], dim=1
        )
        for conv in (
            self.parsing_conv1,
            self.parsing_conv2,
            self.parsing_conv3,
            self.parsing_conv4,
        ):
            x = F.relu(conv(x), inplace=True)
        return self.parsing_human(F.relu(self.parsing_conv5(x), inplace=True)), x


def _conv_norm(
    inputs: int, outputs: int, size: int, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    conv = _SameConv(inputs, outputs, size, stride=stride, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-3))


def _stage(
    name: str, inputs: int, planes: int, blocks: int, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Blocks named as in the checkpoint: stages 3 and 4 number theirs (4a, 4b1, 4b2, ...), the
    others letter them (2a, 2b, 2c)."""
    numbered = name in "34"
    stage = nn.Sequential()
    for i in range(blocks):
        letter = "a" if i == 0 else f"b{i}" if numbered else chr(ord("a") + i)
        block = _Bottleneck(
            inputs if i == 0 else 4 * planes,
            planes,
            stride=stride if i == 0 else 1,
            dilation=dilation,
            shortcut=i == 0,
        )
        stage.add_module(f"{name}{letter}", block)
    return stage


@dataclass(frozen=True, kw_only=True)
class JppnetProcedure:
    """The authors' test procedure: the image and its mirror image, resized to squares of three
    sizes; the scores, back at the image's size, are averaged, left and right labels swapped in the
    mirrored half; the label is that of the highest mean.

    Attributes:
        swap: for each label, the one that replaces it in the mirrored image.
        size: side of the network's input at scale 1.
    """

    swap: tuple[int, ...]
    size: int = 384
    scales: tuple[float, ...] = SCALES
    mirror: bool = MIRROR

    def averaged(self, scales: tuple[float, ...] | None, mirror: bool | None) -> Self:
        scales = SCALES if scales is None else scales
        check_scales(scales)
        return replace(self, scales=scales, mirror=MIRROR if mirror is None else mirror)

    def label_maps(
        self, images: Sequence[Image], forward: Forward, device: torch.device
    ) -> list[Labels]:
        """Labels uint8 [H, W] of RGB images uint8 [H, W, 3] of any sizes; a batch per scale."""
        centred = [_centred(torch.tensor(image).to(device)) for image in images]
        maps: list[list[ScoreMap]] = [[] for _ in images]
        for scale in self.scales:
            side = int(self.size * scale)
            batch = torch.stack([_square(x, side) for x in centred])
            if self.mirror:  # before resizing, which samples the left of each pixel
                batch = torch.cat([batch, *(_square(x.flip(2), side)[None] for x in centred)])
            scores = forward(batch)  # [B, C, h, w] or [2B, C, h, w]
            for i, image in enumerate(images):
                H, W, _ = image.shape
                rows, columns = (
                    _enlarge(n, side).to(device)
                    for n, side in zip(scores.shape[2:], (H, W), strict=True)
                )
                maps[i].append(ScoreMap(scores[i], rows, columns))
                if self.mirror:
                    swapped = scores[len(images) + i, list(self.swap)]
                    maps[i].append(ScoreMap(swapped, rows, columns.flip(0)))
        return [best_labels(image_maps) for image_maps in maps]


def _centred(image: Tensor) -> Tensor:
    """RGB uint8 [H, W, 3] -> BGR float32 [3, H, W] minus the mean."""
    mean = torch.tensor(MEAN, device=image.device)
    return (image.flip(2).float() - mean).permute(2, 0, 1)


def _square(x: Tensor, side: int) -> Tensor:
    rows, columns = (tensorflow1_axis(old, side) for old in x.shape[1:])
    return resize(x, rows, columns)


@lru_cache(maxsize=256)
def _enlarge(old: int, new: int) -> Tensor:
    """float32 [new, old]"""
    return torch.from_numpy(tensorflow1_axis(old, new).matrix).float()
