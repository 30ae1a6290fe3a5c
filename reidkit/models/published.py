"""Costs that the papers' tables give, and the configurations that they belong to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reidkit.models.cost import build_weightless, count_parameters, multiply_adds
from reidkit.models.network import GlobalNet
from reidkit.registry import get_arch


@dataclass(frozen=True)
class PublishedRow:
    """One row of a paper's table.

    Attributes:
        label: as the paper calls it.
        arch, options: what we build for it.
        params: published millions of parameters; None where the paper (or our copy) has none.
        gmacs: published billions of multiply-adds.
        frames: of a clip; 1 for an image.
        num_ids: counts batch norm and classifier with so many ids; None leaves the head out.
        note: why the row differs, if it does.
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
    """The row with what we measure: parameters, and multiply-adds of one forward pass."""

    measured_params: int = 0
    measured_macs: float = 0.0


def measure(row: PublishedRow) -> MeasuredRow:
    """Builds the row's network without weights and counts."""
    spec = get_arch(row.arch)
    model = build_weightless(spec, spec.config(**row.options), num_ids=row.num_ids or 0)
    assert isinstance(model, GlobalNet)
    counted = model.trunk if row.num_ids is None else model
    return MeasuredRow(
        **{f.name: getattr(row, f.name) for f in dataclasses.fields(row)},
        measured_params=count_parameters(counted),
        measured_macs=multiply_adds(model, spec.input_size, frames=row.frames),
    )


_IMAGE, _CLIP = {"stages": (2, 3)}, {"stages": (2,)}
_RGA_IDS = 751  # Market-1501's; with CUHK03's 767, CBAM-C would round to 26.5
_TRUNCATED = "the paper cuts off instead of rounding"
_LOST = "no number survives in our copy of the paper"
_FOUR = {"stages": (1, 2, 3, 4), "head": "bnneck"}

TABLES: Mapping[str, tuple[PublishedRow, ...]] = {
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
            note="a 7x7 convolution has 98 weights; what the authors added to it is unknown",
        ),
        PublishedRow("FC-S", "fc-s", params=26.9, num_ids=_RGA_IDS),
        PublishedRow("NL", "nl", {"reduction": 4, **_FOUR}, num_ids=_RGA_IDS, note=_LOST),
        PublishedRow("RGA-S", "rga-s", params=28.3, num_ids=_RGA_IDS),
        PublishedRow("CBAM-C", "cbam-c", params=26.4, num_ids=_RGA_IDS),
        PublishedRow("FC-C", "fc-c", params=26.4, num_ids=_RGA_IDS),
        PublishedRow("SE", "se", {"reduction": 8, **_FOUR}, num_ids=_RGA_IDS, note=_LOST),
        PublishedRow("RGA-C", "rga-c", num_ids=_RGA_IDS, note=_LOST),
    ),
    "ianet-cost": (
        PublishedRow("ResNet-50", "baseline", gmacs=4.06),
        PublishedRow("SIA", "ianet", {"block": "sia", "stages": (3,)}, gmacs=4.09),
    ),
}
