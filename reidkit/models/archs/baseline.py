"""The baseline of all four papers, without any block."""

from __future__ import annotations

from dataclasses import dataclass

from reidkit.choices import EmbeddingSide
from reidkit.errors import ConfigError
from reidkit.models.backbone import build_backbone
from reidkit.models.heads import Head
from reidkit.models.network import GlobalNet
from reidkit.models.options import BackboneName, HeadName, LastStride
from reidkit.registry import register_arch


@dataclass(frozen=True)
class BaselineConfig:
    """Options of `baseline`.

    Attributes:
        backbone: ResNet or GoogLeNet.
        last_stride: stride of the last stage; the papers use 1.
        head: "bn" as IAUnet and IANet, "bnneck" as RGA, "plain" without batch norm.
        embedding: test-time embedding after or before the head's batch norm.
        reduced: number of features of a linear layer with batch norm and ReLU before the head, as
            in torchreid's resnet50_fc512; 0 for none.
    """

    backbone: BackboneName = "resnet50"
    last_stride: LastStride = 1
    head: HeadName = "bn"
    embedding: EmbeddingSide = "post-bn"
    reduced: int = 0

    def __post_init__(self) -> None:
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
