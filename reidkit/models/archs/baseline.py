"""The networks that all four papers start from, without any block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """

    backbone: BackboneName = "resnet50"
    last_stride: Literal[1, 2] = 1
    head: HeadName = "bn"
    embedding: Embedding = "post-bn"

    def __post_init__(self) -> None:
        check_choices(
            self,
            backbone=BackboneName,
            last_stride=Literal[1, 2],
            head=HeadName,
            embedding=Embedding,
        )


@register_arch("baseline", config=BaselineConfig, source="modified ResNet-50 of all four papers")
def build(config: BaselineConfig, *, num_ids: int, input_size: tuple[int, int]) -> GlobalNet:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    head = Head(backbone.channels(4), num_ids=num_ids, kind=config.head, embedding=config.embedding)
    return GlobalNet(backbone, head=head)
