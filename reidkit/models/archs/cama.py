"""CAMA: branches with complementary class activation maps (Yang et al., CVPR 2019), plain and with
IAU blocks (IAUnet, Table XII).

Implemented from the paper's description: the last stage exists once per branch, and all branches
share one input. The penalty on overlapping maps is a loss, computed from `class_maps`.
"""

# B batch, T frames, C channels, H W map, K branches, D embedding

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.choices import EmbeddingSide
from reidkit.errors import ConfigError
from reidkit.models.archs.iaunet import IAUBlockConfig, iau_blocks, supervised_parts
from reidkit.models.backbone import Backbone, build_backbone
from reidkit.models.base import ReidModel
from reidkit.models.blocks.base import Block, split_frames
from reidkit.models.heads import Head
from reidkit.models.network import Trunk, average, frame_maps
from reidkit.models.options import BackboneName, LastStride, check_positive
from reidkit.registry import register_arch
from reidkit.types import ModelOutput


@dataclass(frozen=True)
class CAMAConfig:
    """Options of `cama`.

    Attributes:
        backbone: ResNet or GoogLeNet.
        last_stride: stride of the last stage.
        branches: number of copies of the last stage, each with its own head.
        embedding: test-time embedding after or before the heads' batch norm.
    """

    backbone: BackboneName = "resnet50"
    last_stride: LastStride = 1
    branches: int = 2
    embedding: EmbeddingSide = "post-bn"

    def __post_init__(self) -> None:
        check_positive(self, "branches")


@dataclass(frozen=True)
class CAMAIAUConfig(IAUBlockConfig, CAMAConfig):
    """Options of `cama-iau`: those of `cama` and of the IAU blocks."""

    def __post_init__(self) -> None:
        CAMAConfig.__post_init__(self)
        IAUBlockConfig.__post_init__(self)
        if 4 in self.stages:
            raise ConfigError(
                f"arch.stages: found {list(self.stages)}, expected stages of 1, 2, 3: "
                "stage 4 belongs to CAMA's branches"
            )


class CAMA(ReidModel):
    """The last stage once per branch; the embedding concatenates the branches' features."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        heads: Sequence[Head],
        blocks: Mapping[str, Block] | None = None,
        parts: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.trunk = Trunk(backbone, blocks=blocks or {}, keep=(3, 4))
        self.heads = nn.ModuleList(heads)
        units = backbone.units(4)
        # the trunk's last stage is the first branch
        self.branches = nn.ModuleList(nn.Sequential(*copy.deepcopy(list(units))) for _ in heads[1:])
        self.embedding_dim = len(heads) * backbone.channels(4)
        self.parts = tuple(parts)

    @property
    def backbone(self) -> Backbone:
        return self.trunk.backbone

    def forward(self, images: Tensor) -> ModelOutput:
        last_maps, part_maps = self._last_maps(images)
        heads = self._heads()
        found = [head(average(x)) for head, x in zip(heads, last_maps, strict=True)]
        part_maps = tuple(frame_maps(maps, images) for maps in part_maps) if self.parts else ()
        return ModelOutput(
            features=torch.cat([output.features for output in found], 1),
            logits=tuple(logits for output in found for logits in output.logits),
            part_maps=part_maps,
            class_maps=tuple(
                class_maps(x, head.classifier)
                for head, x in zip(heads, last_maps, strict=True)
                if head.classifier is not None
            ),
        )

    def embed(self, images: Tensor) -> Tensor:
        last_maps, _ = self._last_maps(images)
        found = [head.embed(average(x)) for head, x in zip(self._heads(), last_maps, strict=True)]
        return torch.cat(found, 1)

    def after_pretrained(self) -> None:
        """Initialises the other branches as copies of the trunk's last stage."""
        for branch in self.branches:
            for unit, own in zip(cast(nn.Sequential, branch), self.backbone.units(4), strict=True):
                unit.load_state_dict(own.state_dict())

    def _heads(self) -> list[Head]:
        return [cast(Head, head) for head in self.heads]

    def _last_maps(self, images: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Feature maps of the branches, each [B, T, C, H, W], and part maps of the trunk."""
        trunk = self.trunk(images)
        shared, last = trunk.maps
        B, T = shared.shape[:2]
        frames = shared.flatten(0, 1)
        others = [split_frames(branch(frames), B, T) for branch in self.branches]
        return [last, *others], trunk.part_maps


def class_maps(clip_map: Tensor, classifier: nn.Linear) -> Tensor:
    """Classifier responses by position, mean over frames: [B, T, C, H, W] -> [B, ids, H, W]."""
    return F.conv2d(clip_map.mean(1), classifier.weight[:, :, None, None])


def _heads(config: CAMAConfig, backbone: Backbone, num_ids: int) -> list[Head]:
    return [
        Head(backbone.channels(4), num_ids=num_ids, embedding=config.embedding)
        for _ in range(config.branches)
    ]


@register_arch("cama", config=CAMAConfig, source="Yang et al., CVPR 2019")
def build(config: CAMAConfig, *, num_ids: int, input_size: tuple[int, int]) -> CAMA:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    return CAMA(backbone, heads=_heads(config, backbone, num_ids))


@register_arch(
    "cama-iau",
    config=CAMAIAUConfig,
    source="Hou et al., TNNLS 2020, Table XII",
    parts=supervised_parts,
)
def build_iau(config: CAMAIAUConfig, *, num_ids: int, input_size: tuple[int, int]) -> CAMA:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    blocks = iau_blocks(backbone, config)
    heads = _heads(config, backbone, num_ids)
    return CAMA(backbone, heads=heads, blocks=blocks, parts=supervised_parts(config))
