"""PFSA: parameter-free spatial attention (Wang et al. 2018, sec. 3.2)."""

# B batch, T frames, C channels, H W map, S stripes

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reidkit.models.backbone import Backbone, build_backbone
from reidkit.models.base import ReidModel
from reidkit.models.blocks.base import at_least_float32, full_precision, split_frames
from reidkit.models.network import Trunk
from reidkit.models.options import BackboneName, LastStride, check_dropout
from reidkit.models.stripes import (
    STRIPES,
    StripeHead,
    check_stripes,
    cut_stripes,
    id_classifier,
    normalised_stripes,
)
from reidkit.registry import register_arch
from reidkit.types import ModelOutput

Rescaling = Literal["softmax", "l1"]
DeepReduction = Literal["conv", "none"]
DeepPooling = Literal["mean", "sum"]
REDUCED = 256


@dataclass(frozen=True)
class PFSAConfig:
    """Options of `pfsa`: the paper's form by default, the released code's by the preset
    `pfsa-released`. In Table 2, "Backbone" is parts and deep_supervision false, "Backbone + DS" is
    parts false; SA1 and SA2 are backbone_attention and deep_attention.

    Attributes:
        backbone: ResNet or GoogLeNet.
        last_stride: stride of the last stage; the paper uses 1.
        rescaling: "softmax" of the channel sums (eq. 1), or "l1" (released code).
        backbone_attention: attention on the last feature map (SA1, an ablation).
        deep_supervision: adds classifiers to stages 1 to 3.
        deep_attention: attention before these classifiers (SA2).
        deep_reduction: none (paper), or a 1x1 convolution to 256 before them (released code).
        deep_pooling: sum (sec. 3.3) or mean (released code) over positions. No normalisation
            follows: after softmax attention the sum is a weighted mean, without attention its scale
            is that of the number of positions.
        parts: adds six part classifiers to the main one.
        dropout: on the stripes (the paper: 0.47 for Market-1501).
    """

    backbone: BackboneName = "resnet50"
    last_stride: LastStride = 1
    rescaling: Rescaling = "softmax"
    backbone_attention: bool = False
    deep_supervision: bool = True
    deep_attention: bool = True
    deep_reduction: DeepReduction = "none"
    deep_pooling: DeepPooling = "sum"
    parts: bool = True
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_dropout(self.dropout)


def spatial_attention(x: Tensor, *, rescaling: Rescaling = "softmax") -> Tensor:
    """x · p, where the weight p of a position follows from the sum of its channels (eq. 1).

    Args:
        x: [B, C, H, W], non-negative for "l1".
        rescaling: "softmax" over positions (paper), nearly one-hot on real feature maps; or "l1",
            the channel sum divided by its total (released code).
    Returns:
        [B, C, H, W], float32 or wider: p is about 1/(H·W), too small for half precision.
    """
    with full_precision(x):
        x = at_least_float32(x)
        return x * attention_weights(x, rescaling=rescaling)


def attention_weights(x: Tensor, *, rescaling: Rescaling = "softmax") -> Tensor:
    """p of `spatial_attention`: float32 [B, C, H, W] -> [B, 1, H, W], which sums to one."""
    if rescaling == "l1":
        mean = x.mean(1, keepdim=True)
        # a map that is zero everywhere stays zero; the released code divides by zero
        total = mean.sum((2, 3), keepdim=True)
        return mean / total.clamp_min(torch.finfo(x.dtype).tiny)
    total = x.sum(1, keepdim=True)
    return total.flatten(2).softmax(-1).reshape(total.shape)


def attend(clip_map: Tensor, rescaling: Rescaling) -> Tensor:
    """Spatial attention on every frame of [B, T, C, H, W]."""
    B, T = clip_map.shape[:2]
    return split_frames(spatial_attention(clip_map.flatten(0, 1), rescaling=rescaling), B, T)


class DeepBranch(nn.Module):
    """Deep supervision of an earlier stage: attention, pooling, classifier; optionally a reduction
    before the classifier."""

    def __init__(self, channels: int, *, num_ids: int, config: PFSAConfig) -> None:
        super().__init__()
        self.config = config
        reduces = config.deep_reduction == "conv"
        self.conv = nn.Linear(channels, REDUCED, bias=False) if reduces else nn.Identity()
        self.classifier = id_classifier(REDUCED if reduces else channels, num_ids)

    def forward(self, clip_map: Tensor) -> Tensor:
        """clip_map [B, T, C, H, W] -> logits [B, ids]."""
        if self.config.deep_attention:
            clip_map = attend(clip_map, self.config.rescaling)
        pooled = clip_map.mean((3, 4)).mean(1)
        if self.config.deep_pooling == "sum":
            pooled = pooled * (clip_map.shape[3] * clip_map.shape[4])
        logits: Tensor = self.classifier(self.conv(pooled))
        return logits


class PFSA(ReidModel):
    """Trunk, stripes with part classifiers, deep supervision; batch norm on the stripes only.

    `features` is the mean of the six reduced stripes, [B, 256].
    """

    def __init__(self, backbone: Backbone, *, num_ids: int, config: PFSAConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(backbone, blocks={}, keep=(1, 2, 3, 4))
        self.head = StripeHead(
            backbone.channels(4),
            num_ids=num_ids,
            parts=config.parts,
            whole=True,
            reduced=REDUCED,
            dropout=config.dropout,
        )
        stages = (1, 2, 3) if num_ids and config.deep_supervision else ()
        self.deep = nn.ModuleList(
            DeepBranch(backbone.channels(stage), num_ids=num_ids, config=config) for stage in stages
        )
        self.embedding_dim = STRIPES * backbone.channels(4)

    @property
    def backbone(self) -> Backbone:
        return self.trunk.backbone

    def forward(self, images: Tensor) -> ModelOutput:
        maps = self.trunk(images).maps
        found = self.head(self._stripes(maps[-1]))
        deep = tuple(branch(x) for branch, x in zip(self.deep, maps[:3], strict=False))
        return ModelOutput(
            features=found.reduced.mean(2),
            logits=found.logits,
            part_logits=found.part_logits,
            deep_logits=deep,
        )

    def embed(self, images: Tensor) -> Tensor:
        return normalised_stripes(self._stripes(self.trunk(images).maps[-1]))

    def _stripes(self, clip_map: Tensor) -> Tensor:
        if self.config.backbone_attention:
            clip_map = attend(clip_map, self.config.rescaling)
        return cut_stripes(clip_map)


@register_arch("pfsa", config=PFSAConfig, source="Wang et al. 2018", input_size=(384, 128))
def build(config: PFSAConfig, *, num_ids: int, input_size: tuple[int, int]) -> PFSA:
    backbone = build_backbone(config.backbone, last_stride=config.last_stride)
    check_stripes(backbone, input_size)
    return PFSA(backbone, num_ids=num_ids, config=config)
