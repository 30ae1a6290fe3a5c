"""Networks of a hundredth of their size, so that a command takes a second."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from reidkit.models.backbone import ResNetBackbone

_NARROWER = 8


class NarrowResNet(ResNet):
    """A ResNet of one unit per stage, with an eighth of the channels."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1])
        self.fc = nn.Linear(512 // _NARROWER, 1000)

    def _make_layer(self, block: Any, planes: int, *args: Any, **options: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // _NARROWER, *args, **options)


def use_small_models() -> None:
    """From now on in this process, resnet18 is a `NarrowResNet`."""
    torchvision.models.resnet18 = lambda weights=None: NarrowResNet()

    def unit_channels(backbone: ResNetBackbone, stage: int) -> tuple[int, ...]:
        return (32 * 2**stage // _NARROWER,) * len(backbone.units(stage))

    ResNetBackbone.unit_channels = unit_channels  # type: ignore[method-assign]
