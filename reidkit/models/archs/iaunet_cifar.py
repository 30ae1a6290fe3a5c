"""IAUnet for 32x32 object images: equal patches stand in for body parts (IAUnet, sec. IV-C)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reidkit.models.backbone import build_backbone
from reidkit.models.blocks.ciau import ChannelRelation, ChannelUpdate
from reidkit.models.blocks.iau import IAU, Order
from reidkit.models.blocks.stiau import PartExchange, PartRelation, PatchDivision
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet, place_blocks
from reidkit.models.options import Embedding, Placement, check_choices, check_stages
from reidkit.registry import register_arch


@dataclass(frozen=True)
class IAUNetCifarConfig:
    """Options of `iaunet-cifar`. The paper does not describe its CIFAR stem; a 3x3 convolution of
    stride 1 without pooling is the usual one.

    Attributes:
        backbone: a ResNet.
        stages: stages that get a block; () is the plain ResNet of Table V.
        placement: after the stage's last residual block or right before it.
        order: arrangement of the two modules.
        relation: of patches, by sub-network or by L2 distance.
        channel_relation: of channels, by dot product or by L2 distance.
        embedding: which side of the head's batch norm is the test-time feature.
    """

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    stages: tuple[int, ...] = (2, 3)
    placement: Placement = "after"
    order: Order = "ciau-stiau"
    relation: PartRelation = "sub-network"
    channel_relation: ChannelRelation = "dot"
    embedding: Embedding = "post-bn"

    def __post_init__(self) -> None:
        check_stages(self.stages)
        check_choices(
            self,
            backbone=Literal["resnet18", "resnet34", "resnet50", "resnet101"],
            placement=Placement,
            order=Order,
            relation=PartRelation,
            channel_relation=ChannelRelation,
            embedding=Embedding,
        )


@register_arch(
    "iaunet-cifar",
    config=IAUNetCifarConfig,
    source="Hou et al., TNNLS 2020, sec. IV-C",
    input_size=(32, 32),
)
def build(config: IAUNetCifarConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    backbone = build_backbone(config.backbone, last_stride=2, stem="cifar")

    def block(_: int, channels: int) -> IAU:
        part = PartExchange(channels, division=PatchDivision(), relation=config.relation)
        channel = ChannelUpdate(channels, relation=config.channel_relation)
        return IAU(channel=channel, part=part, order=config.order)

    blocks = place_blocks(backbone, stages=config.stages, build=block, placement=config.placement)
    head = Head(backbone.channels(4), num_ids=num_ids, embedding=config.embedding)
    return GlobalNet(backbone, head=head, blocks=blocks)
