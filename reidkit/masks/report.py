"""Quality of a mask file: coverage per part, empty masks, and the images to check first."""

# N masks, h w of the maps, P parts

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reidkit.masks.agreement import Agreement
from reidkit.masks.store import Header, MaskStore
from reidkit.types import PARTS

SUSPECTS = 20
_CHUNK = 1024

EMPTY = 0.01
"""Below this share of the image a mask counts as empty; below a tenth of it, a part as absent."""
FULL = 0.9
RIM = 0.1
"""Share of the width on each side that a person in a detector's box does not reach."""
OFF_CENTRE = 0.25
"""Distance of the mask's centre from the middle, as a share of the width."""
RAGGED = 1.2
"""Edges between neighbouring cells per cell of the mask, on a map of 64x32: about 0.5 for a
person, 2 for noise."""


@dataclass(frozen=True)
class Suspect:
    """An image whose mask looks wrong, and the reasons; a higher score is worse."""

    path: str
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class MaskReport:
    """Summary of a mask file.

    Attributes:
        coverage: per part, its mean share of the image, 0..1.
        absent: per part, images in which it covers next to nothing.
        empty: images with next to no mask at all.
        suspicious: number of images with any reason to be checked; `suspects` are the worst.
        warnings: to be read before training on these masks.
        agreement: of the parser's test procedure with its original one, where they differ.
    """

    source: str
    split: str
    parts: tuple[str, ...]
    images: int
    coverage: tuple[float, ...]
    absent: tuple[int, ...]
    empty: int
    suspicious: int
    suspects: tuple[Suspect, ...]
    warnings: tuple[str, ...]
    agreement: Agreement | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "source": self.source,
            "split": self.split,
            "images": self.images,
            "parts": {
                part: {"coverage": round(share, 5), "absent": absent}
                for part, share, absent in zip(self.parts, self.coverage, self.absent, strict=True)
            },
            "empty": self.empty,
            "suspicious": self.suspicious,
            "suspects": [
                {"path": s.path, "score": round(s.score, 2), "reasons": list(s.reasons)}
                for s in self.suspects
            ],
            "warnings": list(self.warnings),
            "agreement": self.agreement and asdict(self.agreement),
        }


def mask_report(store: MaskStore) -> MaskReport:
    """Checks every mask of a store."""
    paths = store.paths
    P = len(store.parts)
    covered = np.zeros(P)
    absent = np.zeros(P, int)
    empty = suspicious = 0
    worst: list[Suspect] = []
    for start in range(0, len(paths), _CHUNK):
        names = paths[start : start + _CHUNK]
        maps = _small(store.read(names))
        shares = _shares(maps, P)
        covered += shares.sum(axis=0)
        absent += (shares < EMPTY / 10).sum(axis=0)
        empty += int((shares.sum(axis=1) < EMPTY).sum())
        found = _suspects(names, maps, shares, store.parts)
        suspicious += len(found)
        worst = heapq.nsmallest(SUSPECTS, worst + found, key=lambda s: (-s.score, s.path))
    header, N = store.header, len(paths)
    return MaskReport(
        source=header.source,
        split=header.split,
        parts=store.parts,
        images=N,
        coverage=tuple((covered / N).tolist()),
        absent=tuple(absent.tolist()),
        empty=empty,
        suspicious=suspicious,
        suspects=tuple(worst),
        warnings=_warnings(store.path, header, absent, empty, suspicious, N),
        agreement=header.agreement,
    )


def _small(maps: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The cells at the centres of a grid of 64x32: enough for shares and an order of parts."""
    _, h, w = maps.shape
    rows, columns = (np.arange(64) + 0.5) * h / 64, (np.arange(32) + 0.5) * w / 32
    return maps[:, rows.astype(int)[:, None], columns.astype(int)]


def _shares(maps: npt.NDArray[np.uint8], P: int) -> npt.NDArray[np.float64]:
    """[N, P]: each part's share of the map."""
    return np.stack([(maps == part).mean(axis=(1, 2)) for part in range(1, P + 1)], axis=1)


def _suspects(
    names: Sequence[str],
    maps: npt.NDArray[np.uint8],
    shares: npt.NDArray[np.float64],
    parts: tuple[str, ...],
) -> list[Suspect]:
    w = maps.shape[2]
    figure = maps > 0
    total = shares.sum(axis=1)
    none = total < EMPTY
    cells = np.maximum(figure.sum(axis=(1, 2)), 1)
    rim = max(1, round(RIM * w))
    outside = (figure[:, :, :rim].sum(axis=(1, 2)) + figure[:, :, -rim:].sum(axis=(1, 2))) / cells
    centre = (figure.sum(axis=1) * np.linspace(-0.5, 0.5, w)).sum(axis=1) / cells
    edges = (maps[:, 1:] != maps[:, :-1]).sum(axis=(1, 2))
    edges = edges + (maps[:, :, 1:] != maps[:, :, :-1]).sum(axis=(1, 2))
    # a mask of full width, as stripes have, is no reason: it covers rim and middle alike
    checks = [
        (none, 10.0, "next to no mask"),
        (~none & (total > FULL), 6.0, "mask covers the whole image"),
        (~none & (outside > 3 * RIM) & (total < 0.5), 5.0, "mask at the sides of the image"),
        (~none & (abs(centre) > OFF_CENTRE), 4.0, "mask far from the middle"),
        (~none & (edges > RAGGED * cells), 3.0, "mask in specks"),
    ]
    for index, part in enumerate(parts):
        weight = 3.0 if part == "head" else 1.0
        checks.append((~none & (shares[:, index] < EMPTY / 10), weight, f"no {part}"))
    if parts == PARTS:  # others have no order from top to bottom
        checks += _misplaced(maps, shares, parts)
    score = sum(mask * weight for mask, weight, _ in checks)
    assert isinstance(score, np.ndarray)
    return [
        Suspect(names[i], float(score[i]), tuple(reason for mask, _, reason in checks if mask[i]))
        for i in np.flatnonzero(score).tolist()
    ]


def _misplaced(
    maps: npt.NDArray[np.uint8], shares: npt.NDArray[np.float64], parts: tuple[str, ...]
) -> list[tuple[npt.NDArray[np.bool_], float, str]]:
    """Parts named from the top down: masks where a lower part is above a higher one."""
    h = maps.shape[1]
    rows = np.arange(h) / (h - 1)
    height = np.stack(
        [
            ((maps == part).sum(axis=2) * rows).sum(axis=1)
            / np.maximum((maps == part).sum(axis=(1, 2)), 1)
            for part in range(1, len(parts) + 1)
        ],
        axis=1,
    )
    there = shares >= EMPTY / 10
    checks = []
    for upper in range(len(parts)):
        for lower in range(upper + 1, len(parts)):
            above = there[:, upper] & there[:, lower] & (height[:, lower] < height[:, upper])
            weight = 3.0 + lower - upper
            checks.append((above, weight, f"{parts[lower]} above {parts[upper]}"))
    return checks


def _warnings(
    path: Path,
    header: Header,
    absent: npt.NDArray[np.int_],
    empty: int,
    suspicious: int,
    N: int,
) -> tuple[str, ...]:
    warnings = []
    if header.source.startswith("stripes"):
        warnings.append("these are stripes by body proportions; no parser has seen the images")
    elif header.grouping.get("shoes") == ("lower-legs",):
        warnings.append("the part shoes is the lower legs: Pascal-Person-Part has no shoes")
    if empty > 0.02 * N:
        warnings.append(f"{empty:,} of {N:,} masks are nearly empty")
    for part, count in zip(header.parts, absent.tolist(), strict=True):
        if count > 0.3 * N:
            warnings.append(f"{count:,} of {N:,} images have no {part}")
    if suspicious > 0.3 * N:
        warnings.append(
            f"{suspicious:,} of {N:,} masks look wrong. Render a contact sheet: "
            f"reidkit masks show {path} --dataset NAME --sheet sheet.png"
        )
    return tuple(warnings)
