"""Closed choices shared by settings, library and command line. Importing this costs nothing."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Metric = Literal["cosine", "euclidean"]
ProtocolName = Literal["market", "none", "mars", "cuhk03-classic", "cuhk03-classic-sampled"]
ApRule = Literal["step", "trapezoid"]
ClipRule = Literal["tclnet", "bicnet", "ap3d", "first"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
EmbeddingSide = Literal["post-bn", "pre-bn"]
Interpolation = Literal["bicubic", "bilinear"]
ChannelOrder = Literal["rgb", "bgr"]
SamplerKind = Literal["groups", "pk", "shuffle"]
CropKind = Literal["none", "translate", "pad"]
ExternalFormat = Literal[
    "iaunet-reference",
    "ianet-reference",
    "rga-reference",
    "pfsa-reference",
    "torchreid",
    "torchvision",
]
CostTable = Literal["iaunet-vi", "rga-3", "ianet-cost"]
MaskFiles = Literal["index", "colours", "stripes"]
ParserPreset = Literal["imagenet", "schp", "jppnet"]
ApproximateSearch = Literal["ivf", "hnsw"]
ParserFit = Literal["stretch", "pad"]
SyntheticLayout = Literal[
    "market1501",
    "market1501-500k",
    "dukemtmc-reid",
    "msmt17",
    "msmt17-v2",
    "cuhk03-np-labeled",
    "cuhk03-np-detected",
    "cuhk03-classic-labeled",
    "cuhk03-classic-detected",
    "mars",
    "dukemtmc-videoreid",
    "cifar100",
    "csv",
]


class AttentionFigure(StrEnum):
    """Figures of `reidkit visualize attention`."""

    PART_MAPS = "part-maps"
    SPATIAL_RELATIONS = "spatial-relations"
    TEMPORAL_RELATIONS = "temporal-relations"
    CHANNEL_RELATIONS = "channel-relations"
    RECEPTIVE_FIELDS = "receptive-fields"
    CONTEXTS = "contexts"
    MASKS = "masks"
    POSITION_RELATIONS = "position-relations"
    CLASS_MAPS = "class-maps"
    GRAD_CAM = "grad-cam"
