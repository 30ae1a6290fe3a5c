"""The networks that all four papers start from, without any block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reidkit.errors import ConfigError
from reidkit.models.backbone import build_backbone
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet
from reidkit.models.options import BackboneName, Embedding, HeadName, check_choices
from reidkit.registry import register_arch


@dataclass(frozen=True)
class BaselineConfig:
    """Options of `baseline`.

    Attributes:
        backbone: trunk.
        last_stride: stride of the last stage; the papers use 1.
        head: "bn" as IAUnet and IANet, "bnneck" as RGA, "plain" without batch norm.
        embedding: which side of the head's batch norm is the test-time feature.
        reduced: a linear layer to so many features, batch norm and ReLU before the head, as
            torchreid's resnet50_fc512 has it; 0 for none.
    """

    backbone: BackboneName = "resnet50"
    last_stride: Literal[1, 2] = 1
    head: HeadName = "bn"
    embedding: Embedding = "post-bn"
    reduced: int = 0

    def __post_init__(self) -> None:
        check_choices(
            self,
            backbone=BackboneName,
            last_stride=Literal[1, 2],
            head=HeadName,
            embedding=Embedding,
        )
        if self.reduced < 0:
            raise ConfigError(f"arch.reduced: found {self.reduced}, expected 0 or more")


@register_arch("baseline", config=BaselineConfig, source="modified ResNet-50 of all four papers")
def build(config: BaselineConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    head = Head(
        backbone.channels(4),
        num_ids=num_ids,
        kind=config.head,
        embedding=config.embedding,
        reduced=config.reduced,
    )
    return GlobalNet(backbone, head=head)
