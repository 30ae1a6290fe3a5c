"""IAUnet for 32x32 object images: equal patches replace body parts (IAUnet, sec. IV-C)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reidkit.choices import EmbeddingSide
from reidkit.models.backbone import build_backbone
from reidkit.models.blocks.ciau import ChannelRelation, ChannelUpdate
from reidkit.models.blocks.iau import IAU, Order
from reidkit.models.blocks.stiau import PartExchange, PartRelation, PatchDivision
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet, place_blocks
from reidkit.models.options import LastStride, Placement, check_stages
from reidkit.registry import register_arch


@dataclass(frozen=True)
class IAUNetCifarConfig:
    """Options of `iaunet-cifar`. The paper gives neither stem nor last stride for CIFAR; the usual
    ones are used, a 3x3 convolution of stride 1 without pooling, and 2.

    Attributes:
        backbone: ResNet.
        last_stride: stride of the last stage; 1 as in the paper's networks for person re-ID.
        stages: stages with a block; none gives the plain ResNet of Table V.
        placement: after a stage's last residual block, or before it.
        order: arrangement of the two modules.
        relation: relation of patches, by sub-network or by L2 distance.
        channel_relation: relation of channels, by dot product or by L2 distance.
        embedding: test-time embedding after or before the head's batch norm.
    """

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    last_stride: LastStride = 2
    stages: tuple[int, ...] = (2, 3)
    placement: Placement = "after"
    order: Order = "ciau-stiau"
    relation: PartRelation = "sub-network"
    channel_relation: ChannelRelation = "dot"
    embedding: EmbeddingSide = "post-bn"

    def __post_init__(self) -> None:
        check_stages(self.stages)


@register_arch(
    "iaunet-cifar",
    config=IAUNetCifarConfig,
    source="Hou et al., TNNLS 2020, sec. IV-C",
    input_size=(32, 32),
)
def build(config: IAUNetCifarConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride, stem="cifar")

    def block(_: int, channels: int) -> IAU:
        part = PartExchange(channels, division=PatchDivision(), relation=config.relation)
        channel = ChannelUpdate(channels, relation=config.channel_relation)
        return IAU(channel=channel, part=part, order=config.order)

    blocks = place_blocks(backbone, stages=config.stages, build=block, placement=config.placement)
    head = Head(backbone.channels(4), num_ids=num_ids, embedding=config.embedding)
    return GlobalNet(backbone, head=head, blocks=blocks)
