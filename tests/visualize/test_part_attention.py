"""Part attention is compared with part masks by intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.data.manifest import open_dataset
from reidkit.errors import ConfigError
from reidkit.models.backbone import build_backbone
from reidkit.models.base import ReidModel
from reidkit.preprocess import Preprocess
from reidkit.types import ModelOutput, Sample
from reidkit.visualize.part_attention import PartAgreement, part_agreement

SIZE = (16, 8)
MASK = np.zeros(SIZE, np.uint8)
MASK[0:3], MASK[3:8], MASK[8:14], MASK[14:16] = 1, 2, 3, 4


class Stripes:
    """The same mask for every image."""

    def read(self, paths: Sequence[str]) -> NDArray[np.uint8]:
        return np.stack([MASK] * len(paths))


class Fixed(ReidModel):
    """Returns the same part maps for every image."""

    backbone = build_backbone("resnet18")

    def __init__(self, maps: Tensor | None) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> ModelOutput:
        maps = () if self.maps is None else (self.maps.expand(len(images), -1, -1, -1),)
        return ModelOutput(features=images.flatten(1), logits=(), part_maps=maps)

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def agreement(market: Path, maps: Tensor | None) -> PartAgreement:
    data = open_dataset(str(market))
    samples = [item for item in data.query if isinstance(item, Sample)]
    return part_agreement(
        Fixed(maps),
        data,
        samples,
        Stripes(),
        preprocess=Preprocess(size=SIZE),
        device=torch.device("cpu"),
        batch=7,
    )


def mask_planes() -> Tensor:
    return torch.stack([torch.from_numpy(part + 1 == MASK) for part in range(4)]).float()[None]


def test_maps_equal_to_the_masks_agree_fully(market: Path) -> None:
    found = agreement(market, 0.2 + 0.6 * mask_planes())
    assert found.mean == 1 and list(found.own.values()) == [1, 1, 1, 1]
    assert found.images == len(open_dataset(str(market)).query)


def test_channels_are_assigned_to_the_parts_they_match(market: Path) -> None:
    found = agreement(market, 0.2 + 0.6 * mask_planes()[:, [1, 0, 3, 2]])
    assert found.mean == 1 and list(found.channel.values()) == [1, 0, 3, 2]
    assert max(found.own.values()) < 1


def test_uniform_attention_gives_each_part_its_fraction_of_the_image(market: Path) -> None:
    found = agreement(market, torch.full((1, 4, *SIZE), 0.9))
    assert list(found.own.values()) == pytest.approx([3 / 16, 5 / 16, 6 / 16, 2 / 16])


def test_a_network_without_part_maps_is_refused(market: Path) -> None:
    with pytest.raises(ConfigError, match="has no part maps"):
        agreement(market, None)
