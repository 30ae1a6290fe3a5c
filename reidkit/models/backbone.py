"""Backbones: ResNets and GoogLeNet as a stem and four stages of units.

Parameter names are torchvision's, so that its ImageNet weights load by name. The "modified
ResNet-50" of all four papers has no down-sampling in its last stage (last_stride=1): 256x128 pixels
give maps of 64x32, 32x16, 16x8 and 16x8.
"""

# F frames, C channels, H W map

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, cast

import torchvision
from torch import Tensor, nn

from reidkit.models.options import BackboneName

Stem = Literal["imagenet", "cifar"]


class Backbone(nn.Module, ABC):
    """A stem and four stages; a stage is a sequence of units, between which blocks can be placed.

    Attributes:
        name: as in the options of the architectures.
        torchvision_name: the torchvision network whose ImageNet weights fit; None if none do.
    """

    name: str
    torchvision_name: str | None

    @abstractmethod
    def stem(self, frames: Tensor) -> Tensor:
        """[F, 3, H, W] -> the input of stage 1."""

    @abstractmethod
    def units(self, stage: int) -> Sequence[nn.Module]:
        """The units of stage 1..4, in the order in which they are applied."""

    @abstractmethod
    def unit_channels(self, stage: int) -> tuple[int, ...]:
        """Output channels of each unit of stage 1..4."""

    @abstractmethod
    def map_size(self, stage: int, input_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the stage's feature map for an input of `input_size` pixels."""

    def channels(self, stage: int) -> int:
        """Output channels of stage 1..4."""
        return self.unit_channels(stage)[-1]


class ResNetBackbone(Backbone):
    """He et al. 2016, torchvision's variant (stride in the 3x3 convolution) and initialisation.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        last_stride: stride of stage 4; 1 keeps the resolution of stage 3.
        stem: "cifar" is a 3x3 convolution of stride 1 without pooling, for 32x32 inputs; ImageNet
            weights do not fit.
    """

    def __init__(self, name: str, *, last_stride: int = 1, stem: Stem = "imagenet") -> None:
        super().__init__()
        resnet = getattr(torchvision.models, name)(weights=None)
        self.name = name
        self.cifar = stem == "cifar"
        self.torchvision_name = None if self.cifar else name
        self.last_stride = last_stride
        self.conv1 = resnet.conv1
        if self.cifar:
            self.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = resnet.bn1
        self.relu = resnet.relu
        self.maxpool = nn.Identity() if self.cifar else resnet.maxpool
        self.layer1 = resnet.layer1
        self.layer2 = resnet.layer2
        self.layer3 = resnet.layer3
        self.layer4 = resnet.layer4
        if last_stride == 1:
            for module in self.layer4[0].modules():
                if isinstance(module, nn.Conv2d):
                    module.stride = (1, 1)

    def stem(self, frames: Tensor) -> Tensor:
        return cast(Tensor, self.maxpool(self.relu(self.bn1(self.conv1(frames)))))

    def units(self, stage: int) -> Sequence[nn.Module]:
        return list(cast(nn.Sequential, getattr(self, f"layer{stage}")))

    def unit_channels(self, stage: int) -> tuple[int, ...]:
        expansion = 1 if self.name in ("resnet18", "resnet34") else 4
        return (32 * 2**stage * expansion,) * len(self.units(stage))

    def map_size(self, stage: int, input_size: tuple[int, int]) -> tuple[int, int]:
        # layers of stride 2 are padded, so sizes are halved and rounded up
        halvings = (0 if self.cifar else 2) + min(stage, 3) - 1
        halvings += stage == 4 and self.last_stride == 2
        height, width = (math.ceil(size / 2**halvings) for size in input_size)
        return height, width


class GoogLeNetBackbone(Backbone):
    """Szegedy et al. 2015 with batch norm, torchvision's variant: the non-residual backbone of
    IAUnet's Table XI ("Inception") and IANet's Table 5 ("GN").

    Stages end before each max pooling, after conv3, inception 3b, 4e and 5b, so their maps have
    about the sizes of ResNet's. last_stride=1 removes the last max pooling.
    """

    _CHANNELS = ((64, 192), (256, 480), (512, 512, 512, 528, 832), (832, 1024))

    def __init__(self, *, last_stride: int = 1) -> None:
        super().__init__()
        net = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=True)
        self.name = self.torchvision_name = "googlenet"
        self.last_stride = last_stride
        self.conv1, self.maxpool1 = net.conv1, net.maxpool1
        self.conv2, self.conv3, self.maxpool2 = net.conv2, net.conv3, net.maxpool2
        self.inception3a, self.inception3b = net.inception3a, net.inception3b
        self.maxpool3 = net.maxpool3
        self.inception4a, self.inception4b = net.inception4a, net.inception4b
        self.inception4c, self.inception4d = net.inception4c, net.inception4d
        self.inception4e = net.inception4e
        self.maxpool4 = nn.Identity() if last_stride == 1 else net.maxpool4
        self.inception5a, self.inception5b = net.inception5a, net.inception5b

    def stem(self, frames: Tensor) -> Tensor:
        # torchvision's weights expect (x - 0.5) / 0.5; inputs have ImageNet's mean and std
        scale = frames.new_tensor((0.229, 0.224, 0.225)).view(3, 1, 1) / 0.5
        shift = (frames.new_tensor((0.485, 0.456, 0.406)).view(3, 1, 1) - 0.5) / 0.5
        return cast(Tensor, self.maxpool1(self.conv1(frames * scale + shift)))

    def units(self, stage: int) -> Sequence[nn.Module]:
        if stage == 1:
            return [self.conv2, self.conv3]
        names = {2: "ab", 3: "abcde", 4: "ab"}[stage]
        blocks = [getattr(self, f"inception{stage + 1}{letter}") for letter in names]
        pool = getattr(self, f"maxpool{stage}")
        return [nn.Sequential(pool, blocks[0]), *blocks[1:]]

    def unit_channels(self, stage: int) -> tuple[int, ...]:
        return self._CHANNELS[stage - 1]

    def map_size(self, stage: int, input_size: tuple[int, int]) -> tuple[int, int]:
        def size(pixels: int) -> int:
            pixels = math.ceil(pixels / 2)  # conv1, padded
            for _ in range(min(stage, 3)):  # 3x3 pooling of stride 2 without padding, ceil mode
                pixels = math.ceil((pixels - 3) / 2) + 1
            return math.ceil(pixels / 2) if stage == 4 and self.last_stride == 2 else pixels

        height, width = (size(pixels) for pixels in input_size)
        return height, width


def build_backbone(
    name: BackboneName, *, last_stride: int = 1, stem: Stem = "imagenet"
) -> Backbone:
    """The backbone called `name`, randomly initialised (`weights.load_imagenet` loads weights)."""
    if name == "googlenet":
        return GoogLeNetBackbone(last_stride=last_stride)
    return ResNetBackbone(name, last_stride=last_stride, stem=stem)
