"""The blocks that IAUnet (Table VI) and RGA (Table 2) are compared with, on the same baseline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from reidkit.errors import ConfigError
from reidkit.models.backbone import Backbone, build_backbone
from reidkit.models.blocks.attention import SE, GateName, build_gate
from reidkit.models.blocks.base import Block
from reidkit.models.blocks.nonlocal_block import NonLocal, SimplifiedNonLocal
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet, place_blocks
from reidkit.models.options import (
    AnyPlacement,
    BackboneName,
    Embedding,
    HeadName,
    check_choices,
    check_positive,
    check_stages,
)
from reidkit.registry import register_arch


@dataclass(frozen=True)
class ComparisonConfig:
    """Options that all comparison networks have.

    Attributes:
        backbone: trunk.
        last_stride: stride of the last stage; the papers use 1.
        stages: stages that get a block.
        placement: after the stage's last residual block, right before it, or after every one.
        head: "bn" as IAUnet, "bnneck" as RGA, "plain" without batch norm.
        embedding: which side of the head's batch norm is the test-time feature.
    """

    backbone: BackboneName = "resnet50"
    last_stride: Literal[1, 2] = 1
    stages: tuple[int, ...] = (2, 3)
    placement: AnyPlacement = "after"
    head: HeadName = "bn"
    embedding: Embedding = "post-bn"

    def __post_init__(self) -> None:
        check_stages(self.stages)
        check_choices(
            self,
            backbone=BackboneName,
            last_stride=Literal[1, 2],
            placement=AnyPlacement,
            head=HeadName,
            embedding=Embedding,
        )


@dataclass(frozen=True)
class NonLocalConfig(ComparisonConfig):
    """Options of `nl`.

    Attributes:
        reduction: C over the inner channels. 2 is published and gives IAUnet's Table VI.
    """

    reduction: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "reduction")


@dataclass(frozen=True)
class SEConfig(ComparisonConfig):
    """Options of `se`.

    Attributes:
        reduction: C over the inner channels; 16 is published.
    """

    reduction: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "reduction")


@dataclass(frozen=True)
class GateConfig(ComparisonConfig):
    """Options of the `cbam-*` and `fc-*` networks, placed and headed as RGA compares them.

    Attributes:
        reduction: of their fully connected layers; 8 gives RGA's Table 3.
    """

    stages: tuple[int, ...] = (1, 2, 3, 4)
    head: HeadName = "bnneck"
    reduction: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "reduction")


@register_arch("nl", config=NonLocalConfig, source="Wang et al., CVPR 2018")
def build_nl(config: NonLocalConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    def block(_: Backbone, __: int, channels: int) -> Block:
        return NonLocal(channels, reduction=_reduction(config.reduction, channels))

    return _build(config, block, num_ids=num_ids)


@register_arch("snl", config=ComparisonConfig, source="Cao et al., 2019 (simplified non-local)")
def build_snl(config: ComparisonConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    return _build(config, lambda *where: SimplifiedNonLocal(where[-1]), num_ids=num_ids)


@register_arch("se", config=SEConfig, source="Hu et al., CVPR 2018")
def build_se(config: SEConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    def block(_: Backbone, __: int, channels: int) -> Block:
        return SE(channels, reduction=_reduction(config.reduction, channels))

    return _build(config, block, num_ids=num_ids)


def _register_gate(name: GateName, source: str) -> None:
    @register_arch(name, config=GateConfig, source=source)
    def build(config: GateConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
        def block(backbone: Backbone, stage: int, channels: int) -> Block:
            height, width = backbone.map_size(stage, input_size)
            if name.startswith("fc-s") and height * width < config.reduction:
                raise ConfigError(
                    f"input size: found {input_size[0]}x{input_size[1]}, a {height}x{width} map "
                    f"in stage {stage}; {name} needs at least {config.reduction} positions there"
                )
            return build_gate(
                name,
                channels,
                positions=height * width,
                reduction=_reduction(config.reduction, channels),
            )

        return _build(config, block, num_ids=num_ids)


def _build(
    config: ComparisonConfig, block: Callable[[Backbone, int, int], Block], *, num_ids: int
) -> GlobalNet:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    blocks = place_blocks(
        backbone,
        stages=config.stages,
        build=functools.partial(block, backbone),
        placement=config.placement,
    )
    head = Head(backbone.channels(4), num_ids=num_ids, kind=config.head, embedding=config.embedding)
    return GlobalNet(backbone, head=head, blocks=blocks)


def _reduction(reduction: int, channels: int) -> int:
    if reduction > channels:
        raise ConfigError(f"arch.reduction: found {reduction}, expected at most {channels}")
    return reduction


for _name in get_args(GateName):
    _register_gate(
        _name,
        "Woo et al., ECCV 2018" if _name.startswith("cbam") else "Zhang et al., CVPR 2020, Table 2",
    )
