"""How far two label maps of the same images agree."""

# H W pixels, L labels, P parts

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reidkit.masks.labels import Grouping, Labels

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A test procedure compared with the original one of the same network.

    Attributes:
        images: number of images compared.
        labels: share of pixels with the same label, 0..1.
        parts: share of pixels in the same part, or in none.
        part_iou: part -> intersection over union over all images; None where no image has it.
    """

    images: int
    labels: float
    parts: float
    part_iou: dict[str, float | None]

    def describe(self) -> str:
        """One line for the terminal."""
        ious = ", ".join(
            f"{part} {'-' if iou is None else f'{iou:.3f}'}" for part, iou in self.part_iou.items()
        )
        return (
            f"agreement with the original procedure on {self.images} images: "
            f"{100 * self.labels:.2f} % of pixels have the same label,"
            f" {100 * self.parts:.2f} % the same part; IoU {ious}"
        )


def confusion(reference: Labels, found: Labels, *, size: int) -> Counts:
    """int64 [size, size]: pixels by value in `reference` (row) and in `found` (column).

    Args:
        reference, found: uint8 [H, W], values below `size`.
    """
    pairs = reference.astype(np.int64) * size + found
    return np.bincount(pairs.ravel(), minlength=size * size).reshape(size, size)


def intersection_over_union(counts: Counts) -> npt.NDArray[np.float64]:
    """IoU of each value of a confusion matrix [L, L]: float64 [L], NaN where neither map has it."""
    both = counts.diagonal()
    either = counts.sum(axis=0) + counts.sum(axis=1) - both
    ious = np.full(len(counts), np.nan)
    np.divide(both, either, out=ious, where=either > 0)
    return ious


def agreement(counts: Counts, grouping: Grouping, *, images: int) -> Agreement:
    """From the confusion matrix [L, L] of labels.

    Args:
        grouping: of these labels.
        images: that `counts` is over.
    """
    part_of = grouping.table[: len(counts)]
    by_part = np.zeros((len(grouping.parts) + 1,) * 2, np.int64)
    np.add.at(by_part, (part_of[:, None], part_of[None, :]), counts)
    ious = intersection_over_union(by_part)[1:].tolist()
    total = counts.sum()
    return Agreement(
        images=images,
        labels=float(counts.trace() / total),
        parts=float(by_part.trace() / total),
        part_iou={
            part: None if np.isnan(iou) else iou
            for part, iou in zip(grouping.parts, ious, strict=True)
        },
    )
