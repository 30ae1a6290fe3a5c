"""IAUnet: Interaction-Aggregation-Update, for images and clips (Hou et al., TNNLS 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reidkit.models.backbone import build_backbone
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
from reidkit.models.options import BackboneName, Embedding, Placement, check_choices, check_stages
from reidkit.registry import register_arch
from reidkit.types import PARTS

BlockName = Literal["iau", "ciau", "stiau"]


@dataclass(frozen=True)
class IAUBlockConfig:
    """What kind of IAU blocks, and where; shared by all networks that hold them.

    Attributes:
        stages: stages that get a block (the paper: 2 and 3 for images, 2 for clips).
        placement: after the stage's last residual block (released code) or right before it
            (sec. IV-E).
        block: both modules or one of them (Table VII).
        order: arrangement of the two (Table X).
        relation: of parts, by sub-network or by L2 distance (Table IX).
        channel_relation: of channels, by dot product or by L2 distance (Table IX).
        part_pooling: parts as a sum under the attention (released code) or a mean (eq. 9).
        interaction: between parts of a frame, over frames, or both (Table VIII).
        part_supervision: False is "IAU-w/o-Lp": no part maps leave the network, no masks needed.
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
        check_choices(
            self,
            placement=Placement,
            block=BlockName,
            order=Order,
            relation=PartRelation,
            channel_relation=ChannelRelation,
            part_pooling=PartPooling,
            interaction=Interaction,
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that training supervises in this configuration."""
        needs = self.part_supervision and self.block != "ciau" and bool(self.stages)
        return PARTS if needs else ()


@dataclass(frozen=True)
class IAUNetConfig(IAUBlockConfig):
    """Options of `iaunet`.

    Attributes:
        backbone: trunk (Table XI: resnet18, resnet34, Inception).
        last_stride: stride of the last stage; the paper uses 1.
        embedding: which side of the head's batch norm is the test-time feature.
    """

    backbone: BackboneName = "resnet50"
    last_stride: Literal[1, 2] = 1
    embedding: Embedding = "post-bn"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, backbone=BackboneName, last_stride=Literal[1, 2], embedding=Embedding)


def iau_block(config: IAUBlockConfig, channels: int) -> Block:
    """One block as `config` describes it, for a map of `channels` channels."""
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


@register_arch("iaunet", config=IAUNetConfig, source="Hou et al., TNNLS 2020", parts=PARTS)
def build(config: IAUNetConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    blocks = place_blocks(
        backbone,
        stages=config.stages,
        build=lambda _, channels: iau_block(config, channels),
        placement=config.placement,
    )
    head = Head(backbone.channels(4), num_ids=num_ids, embedding=config.embedding)
    return GlobalNet(backbone, head=head, blocks=blocks, parts=config.parts)
