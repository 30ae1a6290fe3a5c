"""IAUnet: Interaction-Aggregation-Update, for images and clips (Hou et al., TNNLS 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reidkit.choices import EmbeddingSide
from reidkit.models.backbone import Backbone, build_backbone
from reidkit.models.blocks.base import Block
from reidkit.models.blocks.ciau import CIAU, ChannelRelation, ChannelUpdate
from reidkit.models.blocks.iau import IAU, Order
from reidkit.models.blocks.stiau import (
    STIAU,
    Interaction,
    PartAttention,
    PartExchange,
    PartPooling,
    PartRelation,
)
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet, place_blocks
from reidkit.models.options import BackboneName, LastStride, Placement, check_stages
from reidkit.registry import register_arch
from reidkit.types import PARTS

BlockName = Literal["iau", "ciau", "stiau"]


@dataclass(frozen=True)
class IAUBlockConfig:
    """Options of IAU blocks, shared by all networks that contain them.

    Attributes:
        stages: stages with a block (the paper: 2 and 3 for images, 2 for clips).
        placement: after a stage's last residual block (released code), or before it (one sentence
            of sec. IV-E; the published numbers are of one network in all tables).
        block: both modules ("iau") or one of them (Table VII).
        order: arrangement of the two modules (Table X).
        relation: relation of parts, by sub-network or by L2 distance (Table IX).
        channel_relation: relation of channels, by dot product or by L2 distance (Table IX).
        part_pooling: part features as a sum under the attention (released code) or mean (eq. 9).
        interaction: between parts of a frame, between frames, or both (Table VIII).
        part_supervision: false trains without part masks and the network returns no part maps
            ("IAU-w/o-Lp").
    """

    stages: tuple[int, ...] = (2, 3)
    placement: Placement = "after"
    block: BlockName = "iau"
    order: Order = "ciau-stiau"
    relation: PartRelation = "sub-network"
    channel_relation: ChannelRelation = "dot"
    part_pooling: PartPooling = "sum"
    interaction: Interaction = "spatial-temporal"
    part_supervision: bool = True

    def __post_init__(self) -> None:
        check_stages(self.stages)


@dataclass(frozen=True)
class IAUNetConfig(IAUBlockConfig):
    """Options of `iaunet`.

    Attributes:
        backbone: ResNet or GoogLeNet (Table XI: resnet18, resnet34, Inception).
        last_stride: stride of the last stage; the paper uses 1.
        embedding: test-time embedding after or before the head's batch norm.
    """

    backbone: BackboneName = "resnet50"
    last_stride: LastStride = 1
    embedding: EmbeddingSide = "post-bn"


def supervised_parts(config: IAUBlockConfig) -> tuple[str, ...]:
    """Body parts whose attention training supervises; empty without STIAU or supervision."""
    has_attention = config.block != "ciau" and bool(config.stages)
    return PARTS if config.part_supervision and has_attention else ()


def iau_blocks(backbone: Backbone, config: IAUBlockConfig) -> dict[str, Block]:
    """The blocks of all stages, by their keys in `Trunk`."""
    return place_blocks(
        backbone,
        stages=config.stages,
        build=lambda _, channels: _iau_block(config, channels),
        placement=config.placement,
    )


def _iau_block(config: IAUBlockConfig, channels: int) -> Block:
    if config.block == "ciau":
        return CIAU(channels, relation=config.channel_relation)
    division = PartAttention(channels, parts=len(PARTS), pooling=config.part_pooling)
    part = PartExchange(
        channels, division=division, relation=config.relation, interaction=config.interaction
    )
    if config.block == "stiau":
        return STIAU(part)
    channel = ChannelUpdate(channels, relation=config.channel_relation)
    return IAU(channel=channel, part=part, order=config.order)


@register_arch(
    "iaunet", config=IAUNetConfig, source="Hou et al., TNNLS 2020", parts=supervised_parts
)
def build(config: IAUNetConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    blocks = iau_blocks(backbone, config)
    head = Head(backbone.channels(4), num_ids=num_ids, embedding=config.embedding)
    return GlobalNet(backbone, head=head, blocks=blocks, parts=supervised_parts(config))
