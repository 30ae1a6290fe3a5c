"""Relation-aware global attention, in five arrangements (Zhang et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
from reidkit.models.options import (
    BackboneName,
    Embedding,
    check_choices,
    check_dropout,
    check_stages,
)
from reidkit.registry import register_arch

SOURCE = "Zhang et al., CVPR 2020"


@dataclass(frozen=True)
class RGAConfig:
    """Options of `rga-s`, `rga-c`, `rga-sc`, `rga-cs` and `rga-s//c`.

    Attributes:
        backbone: trunk.
        last_stride: stride of the last stage; the paper uses 1.
        stages: stages that get a module.
        node_embedding: theta and phi differ, are shared, or are left out (Table 4).
        own_feature: False is "w/o Ori." of Table 1.
        relations: False is "w/o Rel." of Table 1.
        dropout: before the classifier; the released script sets 0.
        embedding: the feature after or before batch norm; the released code reports both.
    """

    backbone: BackboneName = "resnet50"
    last_stride: Literal[1, 2] = 1
    stages: tuple[int, ...] = (1, 2, 3, 4)
    node_embedding: NodeEmbedding = "asymmetric"
    own_feature: bool = True
    relations: bool = True
    dropout: float = 0.0
    embedding: Embedding = "post-bn"

    def __post_init__(self) -> None:
        check_stages(self.stages)
        check_choices(
            self,
            backbone=BackboneName,
            last_stride=Literal[1, 2],
            node_embedding=NodeEmbedding,
            embedding=Embedding,
        )
        check_dropout(self)
        if not (self.own_feature or self.relations):
            raise ConfigError(
                "arch.own_feature and arch.relations are both false, expected at least one true"
            )


@register_arch("rga-s", config=RGAConfig, source=SOURCE)
def build_s(config: RGAConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    return _build(config, "s", num_ids=num_ids, input_size=input_size)


@register_arch("rga-c", config=RGAConfig, source=SOURCE)
def build_c(config: RGAConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    return _build(config, "c", num_ids=num_ids, input_size=input_size)


@register_arch("rga-sc", config=RGAConfig, source=SOURCE)
def build_sc(config: RGAConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    return _build(config, "sc", num_ids=num_ids, input_size=input_size)


@register_arch("rga-cs", config=RGAConfig, source=SOURCE)
def build_cs(config: RGAConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    return _build(config, "cs", num_ids=num_ids, input_size=input_size)


@register_arch("rga-s//c", config=RGAConfig, source=SOURCE)
def build_parallel(config: RGAConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    return _build(config, "s//c", num_ids=num_ids, input_size=input_size)


def _build(
    config: RGAConfig, arrangement: Arrangement, *, num_ids: int, input_size: tuple[int, int]
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
    """Two reductions by 8 must leave something: 1 + N // 8 >= 8 (N // 8 without own feature)."""
    least = REDUCTION * (REDUCTION - config.own_feature)
    for stage in config.stages:
        height, width = backbone.map_size(stage, size)
        if height * width < least:
            raise ConfigError(
                f"input size: found {size[0]}x{size[1]}, a {height}x{width} map in stage {stage}; "
                f"RGA needs at least {least} positions there, e.g. 256x128 or 192x96"
            )
