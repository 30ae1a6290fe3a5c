"""IANet: Interaction-and-Aggregation (Hou et al., CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reidkit.choices import EmbeddingSide
from reidkit.errors import ConfigError
from reidkit.models.backbone import build_backbone
from reidkit.models.blocks.ciau import ChannelUpdate
from reidkit.models.blocks.sia import IA, Fusion, Order, Relations, SpatialUpdate
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet, place_blocks
from reidkit.models.options import (
    AnyPlacement,
    BackboneName,
    LastStride,
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
        backbone: ResNet or GoogLeNet (Table 5, whose "R32" is taken to be resnet34).
        last_stride: stride of the last stage; the paper uses 1.
        stages: stages with a block (Table 4e).
        placement: after a stage's last residual block, before it, or after every one ("every" with
            stages 2 and 3 is stage23-c of Table 4f).
        block: SIA and CIA ("ia"), or one of them.
        order: arrangement of the two (Table 4d).
        variant: "paper", or "released": one context, products divided by sqrt(C).
        contexts: patch sizes of SIA (Table 4a, 4b).
        fusion: fusion of several contexts (Table 4b), and of appearance with location (eq. 5).
        relations: appearance and location ("semantic"), or one of them (Table 4c).
        sigma_x: horizontal standard deviation of the location prior in stages 1 to 4, in map cells;
            the paper gives those of stages 2 and 3.
        sigma_y: the same vertically; twice sigma_x.
        embedding: test-time embedding after or before the head's batch norm.
    """

    backbone: BackboneName = "resnet50"
    last_stride: LastStride = 1
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
    embedding: EmbeddingSide = "post-bn"

    def __post_init__(self) -> None:
        check_stages(self.stages)
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
                f"arch.contexts: found {list(self.contexts)}, but the released variant has only "
                "context 1. Remove contexts, or set arch.variant=paper"
            )


def _ia_block(config: IANetConfig, stage: int, channels: int) -> IA:
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
        build=lambda stage, channels: _ia_block(config, stage, channels),
        placement=config.placement,
    )
    head = Head(backbone.channels(4), num_ids=num_ids, embedding=config.embedding)
    return GlobalNet(backbone, head=head, blocks=blocks)
