"""Parameters and multiply-adds of networks, measured without weights, and the papers' tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reidkit.choices import CostTable
from reidkit.models.base import ReidModel
from reidkit.models.network import GlobalNet
from reidkit.registry import ArchSpec, get_arch


def build_on_meta(
    spec: ArchSpec, config: Any, *, num_ids: int = 0, input_size: tuple[int, int] | None = None
) -> ReidModel:
    """The network on the meta device: shapes without values."""
    with torch.device("meta"):
        model: ReidModel = spec.build(
            config, num_ids=num_ids, input_size=input_size or spec.input_size
        )
    return model.eval()


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, including frozen ones, without buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(model: ReidModel, input_size: tuple[int, int], *, frames: int = 1) -> float:
    """Multiply-adds of convolutions, linear layers and matrix products in `embed`.

    Args:
        model: from `build_on_meta`.
        input_size: (height, width) in pixels.
        frames: number of frames of a clip; 1 for an image.
    """
    shape = (1, 3, *input_size) if frames == 1 else (1, frames, 3, *input_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.embed(torch.zeros(shape, device="meta"))
    flops: int = counter.get_total_flops()
    return flops / 2


@dataclass(frozen=True)
class PublishedRow:
    """One row of a paper's table.

    Attributes:
        label: name in the paper.
        arch, options: the network and its options here.
        params: published millions of parameters; None if unknown.
        gmacs: published billions of multiply-adds; None if unknown.
        frames: number of frames of a clip; 1 for an image.
        num_ids: identities of the classifier; None counts parameters without the head.
        note: reason if the measured value differs.
    """

    label: str
    arch: str
    options: Mapping[str, Any] = field(default_factory=dict)
    params: float | None = None
    gmacs: float | None = None
    frames: int = 1
    num_ids: int | None = None
    note: str = ""


@dataclass(frozen=True)
class MeasuredRow(PublishedRow):
    """The row with our parameters, and multiply-adds of one forward pass."""

    measured_params: int = 0
    measured_macs: float = 0.0


def measure(row: PublishedRow) -> MeasuredRow:
    """Parameters and multiply-adds of the row's network."""
    spec = get_arch(row.arch)
    model = build_on_meta(spec, spec.config(**row.options), num_ids=row.num_ids or 0)
    assert isinstance(model, GlobalNet)
    counted = model.trunk if row.num_ids is None else model
    return MeasuredRow(
        **{f.name: getattr(row, f.name) for f in dataclasses.fields(row)},
        measured_params=count_parameters(counted),
        measured_macs=multiply_adds(model, spec.input_size, frames=row.frames),
    )


_IMAGE, _CLIP = {"stages": (2, 3)}, {"stages": (2,)}
_RGA_IDS = 751  # Market-1501's; with CUHK03's 767, CBAM-C would round to 26.5
_TRUNCATED = "the paper truncates instead of rounding"
_UNREADABLE = "the number is unreadable in our copy of the paper"
_FOUR = {"stages": (1, 2, 3, 4), "head": "bnneck"}

TABLES: Mapping[CostTable, tuple[PublishedRow, ...]] = {
    "iaunet-vi": (
        PublishedRow("baseline", "baseline", {}, 23.5, 4.06),
        PublishedRow("NL", "nl", _IMAGE, 26.1, 4.75),
        PublishedRow("STIAU", "iaunet", {"block": "stiau", **_IMAGE}, 26.1, 4.07),
        PublishedRow("SE", "se", _IMAGE, 23.7, 4.06),
        PublishedRow("CIAU", "iaunet", {"block": "ciau", **_IMAGE}, 24.8, 4.86),
        PublishedRow("IAUnet", "iaunet", _IMAGE, 27.4, 4.87, note=_TRUNCATED),
        PublishedRow("baseline, video", "baseline", {}, 23.5, 16.24, frames=4),
        PublishedRow("NL, video", "nl", _CLIP, 24.0, 19.46, frames=4),
        PublishedRow("STIAU, video", "iaunet", {"block": "stiau", **_CLIP}, 24.0, 16.25, frames=4),
        PublishedRow("SE, video", "se", _CLIP, 23.5, 16.24, frames=4),
        PublishedRow(
            "CIAU, video",
            "iaunet",
            {"block": "ciau", **_CLIP},
            23.7,
            21.07,
            frames=4,
            note=_TRUNCATED,
        ),
        PublishedRow("IAUnet, video", "iaunet", _CLIP, 24.3, 21.08, frames=4),
    ),
    "rga-3": (
        PublishedRow("Baseline", "baseline", {"head": "bnneck"}, 25.1, num_ids=_RGA_IDS),
        PublishedRow(
            "CBAM-S",
            "cbam-s",
            params=26.1,
            num_ids=_RGA_IDS,
            note="a 7x7 convolution has 98 weights; the authors' addition to it is unknown",
        ),
        PublishedRow("FC-S", "fc-s", params=26.9, num_ids=_RGA_IDS),
        PublishedRow("NL", "nl", {"reduction": 4, **_FOUR}, num_ids=_RGA_IDS, note=_UNREADABLE),
        PublishedRow("RGA-S", "rga-s", params=28.3, num_ids=_RGA_IDS),
        PublishedRow("CBAM-C", "cbam-c", params=26.4, num_ids=_RGA_IDS),
        PublishedRow("FC-C", "fc-c", params=26.4, num_ids=_RGA_IDS),
        PublishedRow("SE", "se", {"reduction": 8, **_FOUR}, num_ids=_RGA_IDS, note=_UNREADABLE),
        PublishedRow("RGA-C", "rga-c", num_ids=_RGA_IDS, note=_UNREADABLE),
    ),
    "ianet-cost": (
        PublishedRow("ResNet-50", "baseline", gmacs=4.06),
        PublishedRow("SIA", "ianet", {"block": "sia", "stages": (3,)}, gmacs=4.09),
    ),
}
