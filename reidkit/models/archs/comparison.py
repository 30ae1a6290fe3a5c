"""Blocks that the papers compare IAUnet (Table VI) and RGA (Table 2) with, on the same baseline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from reidkit.choices import EmbeddingSide
from reidkit.errors import ConfigError
from reidkit.models.backbone import Backbone, build_backbone
from reidkit.models.blocks.base import Block
from reidkit.models.blocks.gates import SE, GateName, build_gate
from reidkit.models.blocks.nonlocal_block import NonLocal, SimplifiedNonLocal
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet, place_blocks
from reidkit.models.options import (
    AnyPlacement,
    BackboneName,
    HeadName,
    LastStride,
    check_positive,
    check_stages,
)
from reidkit.registry import register_arch


@dataclass(frozen=True)
class ComparisonConfig:
    """Options shared by all comparison networks.

    Attributes:
        backbone: ResNet or GoogLeNet.
        last_stride: stride of the last stage; the papers use 1.
        stages: stages with a block.
        placement: after a stage's last residual block, before it, or after every one.
        head: "bn" as IAUnet, "bnneck" as RGA, "plain" without batch norm.
        embedding: test-time embedding after or before the head's batch norm.
    """

    backbone: BackboneName = "resnet50"
    last_stride: LastStride = 1
    stages: tuple[int, ...] = (2, 3)
    placement: AnyPlacement = "after"
    head: HeadName = "bn"
    embedding: EmbeddingSide = "post-bn"

    def __post_init__(self) -> None:
        check_stages(self.stages)


@dataclass(frozen=True)
class NonLocalConfig(ComparisonConfig):
    """Options of `nl`.

    Attributes:
        reduction: ratio of channels to inner channels; 2 is published and gives IAUnet's Table VI.
    """

    reduction: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "reduction")


@dataclass(frozen=True)
class SEConfig(ComparisonConfig):
    """Options of `se`.

    Attributes:
        reduction: ratio of channels to inner channels; 16 is published.
    """

    reduction: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "reduction")


@dataclass(frozen=True)
class GateConfig(ComparisonConfig):
    """Options of the `cbam-*` and `fc-*` networks, with RGA's placement and head as defaults.

    Attributes:
        reduction: reduction of their fully connected layers; 8 gives RGA's Table 3.
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
    return _build(config, lambda _, __, channels: SimplifiedNonLocal(channels), num_ids=num_ids)


@register_arch("se", config=SEConfig, source="Hu et al., CVPR 2018")
def build_se(config: SEConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    def block(_: Backbone, __: int, channels: int) -> Block:
        return SE(channels, reduction=_reduction(config.reduction, channels))

    return _build(config, block, num_ids=num_ids)


def build_gated(
    config: GateConfig, *, num_ids: int, input_size: tuple[int, int], gate: GateName
) -> GlobalNet:
    def block(backbone: Backbone, stage: int, channels: int) -> Block:
        height, width = backbone.map_size(stage, input_size)
        if gate.startswith("fc-s") and height * width < config.reduction:
            raise ConfigError(
                f"input size: found {input_size[0]}x{input_size[1]}, a {height}x{width} map "
                f"in stage {stage}; {gate} needs at least {config.reduction} positions there"
            )
        return build_gate(
            gate,
            channels,
            positions=height * width,
            reduction=_reduction(config.reduction, channels),
        )

    return _build(config, block, num_ids=num_ids)


for _gate in get_args(GateName):
    _is_cbam = _gate.startswith("cbam")
    _source = "Woo et al., ECCV 2018" if _is_cbam else "Zhang et al., CVPR 2020, Table 2"
    register_arch(_gate, config=GateConfig, source=_source)(
        functools.partial(build_gated, gate=_gate)
    )


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
