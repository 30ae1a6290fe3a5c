"""IANet: Interaction-and-Aggregation (Hou et al., CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reidkit.errors import ConfigError
from reidkit.models.backbone import build_backbone
from reidkit.models.blocks.ciau import ChannelUpdate
from reidkit.models.blocks.sia import IA, Fusion, Order, Relations, SpatialUpdate
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet, place_blocks
from reidkit.models.options import (
    AnyPlacement,
    BackboneName,
    Embedding,
    check_choices,
    check_positive,
    check_stages,
)
from reidkit.registry import register_arch

BlockName = Literal["ia", "sia", "cia"]
Variant = Literal["paper", "released"]


@dataclass(frozen=True)
class IANetConfig:
    """Options of `ianet`.

    Attributes:
        backbone: trunk (Table 5; its "R32" is taken for resnet34).
        last_stride: stride of the last stage; the paper uses 1.
        stages: stages that get a block (Table 4e).
        placement: after the stage's last residual block, right before it, or after every one
            ("every" with stages 2 and 3 is stage23-c of Table 4f).
        block: SIA and CIA, or one of them.
        order: arrangement of the two (Table 4d).
        variant: "paper", or "released": one context, products divided by sqrt(C).
        contexts: patch sizes of SIA (Table 4a, 4b).
        fusion: of several contexts (Table 4b).
        relations: appearance and location ("semantic"), or one of them (Table 4c).
        sigma_x: location prior of stages 1 to 4 in map cells, across; the paper gives stages 2, 3.
        sigma_y: the same, down; twice sigma_x.
        embedding: which side of the head's batch norm is the test-time feature.
    """

    backbone: BackboneName = "resnet50"
    last_stride: Literal[1, 2] = 1
    stages: tuple[int, ...] = (2, 3)
    placement: AnyPlacement = "after"
    block: BlockName = "ia"
    order: Order = "spatial-channel"
    variant: Variant = "paper"
    contexts: tuple[int, ...] = (1, 2, 3)
    fusion: Fusion = "product"
    relations: Relations = "semantic"
    sigma_x: tuple[float, ...] = (20.0, 10.0, 5.0, 5.0)
    sigma_y: tuple[float, ...] = (40.0, 20.0, 10.0, 10.0)
    embedding: Embedding = "post-bn"

    def __post_init__(self) -> None:
        check_stages(self.stages)
        check_choices(
            self,
            backbone=BackboneName,
            last_stride=Literal[1, 2],
            placement=AnyPlacement,
            block=BlockName,
            order=Order,
            variant=Variant,
            fusion=Fusion,
            relations=Relations,
            embedding=Embedding,
        )
        check_positive(self, "contexts", "sigma_x", "sigma_y")
        if len(set(self.contexts)) != len(self.contexts) or max(self.contexts) > 5:
            raise ConfigError(
                f"arch.contexts: found {list(self.contexts)}, expected different sizes of 1 to 5"
            )
        for field in ("sigma_x", "sigma_y"):
            if len(getattr(self, field)) != 4:
                found = len(getattr(self, field))
                raise ConfigError(f"arch.{field}: found {found} numbers, expected 4, one per stage")
        if self.variant == "released" and self.contexts not in ((1,), (1, 2, 3)):
            raise ConfigError(
                f"arch.contexts: found {list(self.contexts)}, but the released variant has "
                "context 1 alone. Leave contexts out, or take variant paper"
            )


def ia_block(config: IANetConfig, stage: int, channels: int) -> IA:
    """One block as `config` describes it, for a map of `channels` channels."""
    spatial = channel = None
    if config.block != "cia":
        released = config.variant == "released"
        spatial = SpatialUpdate(
            channels,
            contexts=(1,) if released else config.contexts,
            fusion=config.fusion,
            relations=config.relations,
            sigmas=(config.sigma_x[stage - 1], config.sigma_y[stage - 1]),
            scaled=released,
        )
    if config.block != "sia":
        channel = ChannelUpdate(channels, update=False)
    return IA(spatial=spatial, channel=channel, order=config.order)


@register_arch("ianet", config=IANetConfig, source="Hou et al., CVPR 2019")
def build(config: IANetConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    blocks = place_blocks(
        backbone,
        stages=config.stages,
        build=lambda stage, channels: ia_block(config, stage, channels),
        placement=config.placement,
    )
    head = Head(backbone.channels(4), num_ids=num_ids, embedding=config.embedding)
    return GlobalNet(backbone, head=head, blocks=blocks)
