"""PCB: six horizontal stripes (Sun et al., ECCV 2018), plain and with IAU blocks."""

# B batch, T frames, C channels, S stripes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from reidkit.models.archs.iaunet import IAUBlockConfig, iau_blocks, supervised_parts
from reidkit.models.backbone import Backbone, build_backbone
from reidkit.models.base import ReidModel
from reidkit.models.blocks.base import Block
from reidkit.models.network import Trunk, frame_maps
from reidkit.models.options import BackboneName, LastStride, check_dropout
from reidkit.models.stripes import (
    STRIPES,
    StripeHead,
    check_stripes,
    cut_stripes,
    normalised_stripes,
)
from reidkit.registry import register_arch
from reidkit.types import ModelOutput

StripeFeature = Literal["pooled", "reduced"]
REDUCED = 256


@dataclass(frozen=True)
class PCBConfig:
    """Options of `pcb`.

    Attributes:
        backbone: ResNet or GoogLeNet.
        last_stride: stride of the last stage; the paper uses 1.
        dropout: on the stripes, before their reduction.
        feature: test-time embedding from the six pooled stripes ("G" in the paper) or the six
            reduced ones ("H"), each L2-normalised.
    """

    backbone: BackboneName = "resnet50"
    last_stride: LastStride = 1
    dropout: float = 0.5
    feature: StripeFeature = "pooled"

    def __post_init__(self) -> None:
        check_dropout(self.dropout)


@dataclass(frozen=True)
class PCBIAUConfig(IAUBlockConfig, PCBConfig):
    """Options of `pcb-iau`: those of `pcb` and of the IAU blocks."""

    def __post_init__(self) -> None:
        PCBConfig.__post_init__(self)
        IAUBlockConfig.__post_init__(self)


class PCB(ReidModel):
    """Trunk, six stripes, a classifier for each; `logits` are the six, whose losses are summed."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        head: StripeHead,
        feature: StripeFeature,
        blocks: Mapping[str, Block] | None = None,
        parts: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.trunk = Trunk(backbone, blocks=blocks or {})
        self.head = head
        self.feature = feature
        self.parts = tuple(parts)
        width = backbone.channels(4) if feature == "pooled" else REDUCED
        self.embedding_dim = STRIPES * width

    @property
    def backbone(self) -> Backbone:
        return self.trunk.backbone

    def forward(self, images: Tensor) -> ModelOutput:
        trunk = self.trunk(images)
        found = self.head(cut_stripes(trunk.maps[-1]))
        maps = tuple(frame_maps(maps, images) for maps in trunk.part_maps) if self.parts else ()
        return ModelOutput(
            features=found.reduced.flatten(1), logits=found.part_logits, part_maps=maps
        )

    def embed(self, images: Tensor) -> Tensor:
        stripes = cut_stripes(self.trunk(images).maps[-1])
        return normalised_stripes(
            stripes if self.feature == "pooled" else self.head.reduce(stripes)
        )


def _head(config: PCBConfig, backbone: Backbone, num_ids: int) -> StripeHead:
    return StripeHead(
        backbone.channels(4),
        num_ids=num_ids,
        parts=True,
        whole=False,
        reduced=REDUCED,
        dropout=config.dropout,
    )


@register_arch("pcb", config=PCBConfig, source="Sun et al., ECCV 2018", input_size=(384, 128))
def build(config: PCBConfig, *, num_ids: int, input_size: tuple[int, int]) -> PCB:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    check_stripes(backbone, input_size)
    return PCB(backbone, head=_head(config, backbone, num_ids), feature=config.feature)


@register_arch(
    "pcb-iau",
    config=PCBIAUConfig,
    source="Hou et al., TNNLS 2020, Table XII",
    input_size=(384, 128),
    parts=supervised_parts,
)
def build_iau(config: PCBIAUConfig, *, num_ids: int, input_size: tuple[int, int]) -> PCB:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    check_stripes(backbone, input_size)
    blocks = iau_blocks(backbone, config)
    return PCB(
        backbone,
        head=_head(config, backbone, num_ids),
        feature=config.feature,
        blocks=blocks,
        parts=supervised_parts(config),
    )
