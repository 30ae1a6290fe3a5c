"""Closed choices and bounds that settings, library and command line share; cheap to import."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

MAX_CAMERA = 10**18 - 1
"""Largest number of a camera, of which 64 bits are stored."""

Metric = Literal["cosine", "euclidean"]
ProtocolName = Literal["market", "none", "mars", "cuhk03-classic", "cuhk03-classic-sampled"]
ApRule = Literal["step", "trapezoid"]
ClipRule = Literal["tclnet", "bicnet", "ap3d", "first"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
EmbeddingPrecision = Literal["fp32", "bf16"]
Provider = Literal["cpu", "cuda", "tensorrt", "openvino"]
RuntimeMode = Literal["latency", "throughput"]
EmbeddingSide = Literal["post-bn", "pre-bn"]
Interpolation = Literal["bicubic", "bilinear"]
ImageBackend = Literal["pillow", "torchvision"]
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
ExportInput = Literal["normalised", "0-1", "0-255", "uint8-nhwc"]
ExportOutputs = Literal["embeddings", "embeddings,features"]
ExportPrecision = Literal["fp32", "fp16", "int8"]
Consumer = Literal[
    "onnxruntime", "boxmot", "ultralytics", "deepstream", "triton", "openvino", "opencv"
]
MaskFiles = Literal["index", "colours", "stripes"]
ParserName = Literal["jppnet", "schp-lip", "schp-atr", "schp-pascal"]
ParserPrecision = Literal["auto", "fp32", "bf16"]
ParserPreset = Literal["imagenet", "schp", "jppnet"]
ApproximateSearch = Literal["ivf", "hnsw"]
ProjectionMethod = Literal["pca", "tsne"]
ColourBy = Literal["identity", "camera"]
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

_BACKBONE = ("backbone", "last_stride")
_IAU = (
    *("stages", "placement", "block", "order", "relation", "channel_relation", "part_pooling"),
    *("interaction", "part_supervision"),
)
_COMPARISON = (*_BACKBONE, "stages", "placement", "head", "embedding")
_RGA = (*_BACKBONE, "stages", "node_embedding", "own_feature", "relations", "dropout", "embedding")

ARCH_OPTIONS: dict[str, tuple[str, ...]] = {
    "baseline": (*_BACKBONE, "head", "embedding", "reduced"),
    "cama": (*_BACKBONE, "branches", "embedding"),
    "cama-iau": (*_BACKBONE, "branches", "embedding", *_IAU),
    **dict.fromkeys(("nl", "se"), (*_COMPARISON, "reduction")),
    "snl": _COMPARISON,
    **dict.fromkeys(("cbam-c", "cbam-cs", "cbam-s"), (*_COMPARISON, "reduction")),
    **dict.fromkeys(("fc-c", "fc-s", "fc-s//c"), (*_COMPARISON, "reduction")),
    "ianet": (
        *(*_BACKBONE, "stages", "placement", "block", "order", "variant", "contexts", "fusion"),
        *("relations", "sigma_x", "sigma_y", "embedding"),
    ),
    "iaunet": (*_BACKBONE, *_IAU, "embedding"),
    "iaunet-cifar": (
        *(*_BACKBONE, "stages", "placement", "order", "relation", "channel_relation", "embedding"),
    ),
    "pcb": (*_BACKBONE, "dropout", "feature"),
    "pcb-iau": (*_BACKBONE, "dropout", "feature", *_IAU),
    "pfsa": (
        *(*_BACKBONE, "rescaling", "backbone_attention", "deep_supervision", "deep_attention"),
        *("deep_reduction", "deep_pooling", "parts", "dropout"),
    ),
    **dict.fromkeys(("rga-c", "rga-cs", "rga-s", "rga-s//c", "rga-sc"), _RGA),
}
"""Names of the architectures' options. The registry has their types and defaults, but knows them
only once torch is imported, which takes seconds; a misspelled name is refused before."""


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
