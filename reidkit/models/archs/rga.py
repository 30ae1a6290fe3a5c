"""Relation-aware global attention, in five arrangements (Zhang et al., CVPR 2020)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import get_args

from reidkit.choices import EmbeddingSide
from reidkit.errors import ConfigError
from reidkit.models.backbone import Backbone, build_backbone
from reidkit.models.blocks.rga import (
    REDUCTION,
    RGA,
    Arrangement,
    NodeEmbedding,
    RelationAttention,
)
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet, place_blocks
from reidkit.models.options import BackboneName, LastStride, check_dropout, check_stages
from reidkit.registry import register_arch


@dataclass(frozen=True)
class RGAConfig:
    """Options of `rga-s`, `rga-c`, `rga-sc`, `rga-cs` and `rga-s//c`.

    Attributes:
        backbone: ResNet or GoogLeNet.
        last_stride: stride of the last stage; the paper uses 1.
        stages: stages with a module.
        node_embedding: theta and phi differ, are shared, or are omitted (Table 4).
        own_feature: false is "w/o Ori." in Table 1.
        relations: false is "w/o Rel." in Table 1.
        dropout: before the classifier; the released script sets 0.
        embedding: test-time embedding after or before batch norm; the released code reports both.
    """

    backbone: BackboneName = "resnet50"
    last_stride: LastStride = 1
    stages: tuple[int, ...] = (1, 2, 3, 4)
    node_embedding: NodeEmbedding = "asymmetric"
    own_feature: bool = True
    relations: bool = True
    dropout: float = 0.0
    embedding: EmbeddingSide = "post-bn"

    def __post_init__(self) -> None:
        check_stages(self.stages)
        check_dropout(self.dropout)
        if not (self.own_feature or self.relations):
            raise ConfigError(
                "arch.own_feature and arch.relations are both false, expected at least one true"
            )


def build(
    config: RGAConfig, *, num_ids: int, input_size: tuple[int, int], arrangement: Arrangement
) -> GlobalNet:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    _check_size(backbone, config, input_size)

    def attention(features: int, nodes: int) -> RelationAttention:
        return RelationAttention(
            features,
            nodes=nodes,
            embedding=config.node_embedding,
            own=config.own_feature,
            relations=config.relations,
        )

    def block(stage: int, channels: int) -> RGA:
        grid = backbone.map_size(stage, input_size)
        positions = grid[0] * grid[1]
        return RGA(
            spatial=attention(channels, positions) if "s" in arrangement else None,
            channel=attention(positions, channels) if "c" in arrangement else None,
            grid=grid,
            arrangement=arrangement,
        )

    blocks = place_blocks(backbone, stages=config.stages, build=block)
    head = Head(
        backbone.channels(4),
        num_ids=num_ids,
        kind="bnneck",
        embedding=config.embedding,
        dropout=config.dropout,
    )
    return GlobalNet(backbone, head=head, blocks=blocks)


def _check_size(backbone: Backbone, config: RGAConfig, size: tuple[int, int]) -> None:
    """The second reduction by 8 needs 8 inputs: 1 + N // 8 >= 8 (N // 8 without own feature)."""
    least = REDUCTION * (REDUCTION - config.own_feature)
    for stage in config.stages:
        height, width = backbone.map_size(stage, size)
        if height * width < least:
            raise ConfigError(
                f"input size: found {size[0]}x{size[1]}, a {height}x{width} map in stage {stage}; "
                f"RGA needs at least {least} positions there, e.g. 256x128 or 192x96"
            )


for _arrangement in get_args(Arrangement):
    register_arch(f"rga-{_arrangement}", config=RGAConfig, source="Zhang et al., CVPR 2020")(
        functools.partial(build, arrangement=_arrangement)
    )
