"""The trunks: ResNets and GoogLeNet cut into a stem and four stages of units.

Parameter names are torchvision's, so ImageNet weights load by name. The "modified ResNet-50" of
all four papers has its last down-sampling removed (last_stride=1): 256x128 pixels give maps of
64x32, 32x16, 16x8 and 16x8.
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
    """A stem and four stages; a stage is a sequence of units between which blocks can stand."""

    name: str

    @abstractmethod
    def stem(self, frames: Tensor) -> Tensor:
        """[F, 3, H, W] to the first stage's input."""

    @abstractmethod
    def units(self, stage: int) -> Sequence[nn.Module]:
        """The units of stage 1..4, run one after another."""

    @abstractmethod
    def unit_channels(self, stage: int) -> tuple[int, ...]:
        """Output channels of each unit of stage 1..4."""

    @abstractmethod
    def map_size(self, stage: int, input_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the stage's map for an input of `input_size` pixels."""

    def channels(self, stage: int) -> int:
        """Output channels of stage 1..4."""
        return self.unit_channels(stage)[-1]

    def forward(self, frames: Tensor) -> Tensor:
        x = self.stem(frames)
        for stage in (1, 2, 3, 4):
            for unit in self.units(stage):
                x = unit(x)
        return x


class ResNetBackbone(Backbone):
    """He et al. 2016, torchvision's layout (stride on the 3x3) and initialisation.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        last_stride: stride of stage 4; 1 keeps stage 3's resolution.
        stem: "cifar" has a 3x3 convolution of stride 1 and no pooling, for 32x32 inputs.
    """

    def __init__(self, name: str, *, last_stride: int = 1, stem: Stem = "imagenet") -> None:
        super().__init__()
        resnet = getattr(torchvision.models, name)(weights=None)
        self.name = name
        self.cifar = stem == "cifar"
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
        # every stride of 2 is padded so that it rounds up
        halvings = (0 if self.cifar else 2) + min(stage, 3) - 1
        halvings += stage == 4 and self.last_stride == 2
        height, width = (math.ceil(size / 2**halvings) for size in input_size)
        return height, width


class GoogLeNetBackbone(Backbone):
    """Szegedy et al. 2015 with batch norm, as torchvision has it: the non-residual network of
    IAUnet's Table XI ("Inception") and IANet's Table 5 ("GN").

    Stages end where the map is about to shrink: conv3, inception 3b, 4e and 5b, so their maps
    have ResNet's sizes. last_stride=1 leaves out the last max pooling.
    """

    _CHANNELS = ((64, 192), (256, 480), (512, 512, 512, 528, 832), (832, 1024))

    def __init__(self, *, last_stride: int = 1) -> None:
        super().__init__()
        net = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=True)
        self.name = "googlenet"
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
        # torchvision's weights want (x - 0.5) / 0.5; ours are normalised by ImageNet's mean, std
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
    """The trunk called `name`, randomly initialised; `weights.load_imagenet` fills it."""
    if name == "googlenet":
        return GoogLeNetBackbone(last_stride=last_stride)
    return ResNetBackbone(name, last_stride=last_stride, stem=stem)
