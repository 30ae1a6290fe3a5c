"""Resampling exactly as the parsers' authors ran it: OpenCV 4's affine warp, TensorFlow 1's
bilinear resize, and bilinear with aligned corners. All are separable: two samples per axis."""

# h w output, H W input; of score maps: h w scores, H W image, C classes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.masks.labels import Labels

GRID = 32
"""OpenCV 4 rounds the position of a sample to 1/32 pixel."""
FIXED_POINT = 1024
"""OpenCV 4 sums positions in 1/1024 pixel."""


@dataclass(frozen=True)
class Axis:
    """Along one axis, output i is `weights[i, 0] * x[samples[i, 0]] + weights[i, 1] * x[samples[i,
    1]]`.

    Attributes:
        samples: int64 [new, 2], in 0..old-1.
        weights: float64 [new, 2]; 0 for a sample outside the image.
        old: length of the input.
    """

    samples: NDArray[np.int64]
    weights: NDArray[np.float64]
    old: int

    @property
    def matrix(self) -> NDArray[np.float64]:
        """[new, old]: the same as a linear map."""
        new = len(self.samples)
        matrix = np.zeros((new, self.old))
        np.add.at(matrix, (np.arange(new)[:, None], self.samples), self.weights)
        return matrix


def warp_axis(scale: float, offset: float, *, new: int, old: int, is_row: bool) -> Axis:
    """Output i samples position `scale * i + offset` on OpenCV 4's grid of 1/32 pixel; samples
    outside the input count as 0.

    Args:
        is_row: along a row of the image, where `warpAffine` rounds both terms to 1/1024 pixel
            before it adds them; along a column it rounds their sum.
    """
    i = np.arange(new, dtype=np.float64)
    if is_row:
        fixed = np.rint(offset * FIXED_POINT) + np.rint(scale * i * FIXED_POINT)
    else:
        fixed = np.rint((scale * i + offset) * FIXED_POINT)
    unit = FIXED_POINT // GRID
    position = (fixed.astype(np.int64) + unit // 2) // unit
    first, fraction = position // GRID, (position % GRID) / GRID
    samples = np.stack([first, first + 1], axis=1)
    inside = (samples >= 0) & (samples < old)
    weights = np.stack([1 - fraction, fraction], axis=1) * inside
    return Axis(samples.clip(0, old - 1), weights, old)


def tensorflow1_axis(old: int, new: int) -> Axis:
    """`tf.image.resize_images` of TensorFlow 1: output i samples position i * old / new in
    float32, without half pixels, aligned corners or smoothing."""
    position = np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))
    first = np.floor(position).astype(np.int64).clip(max=old - 1)
    fraction = (position - first.astype(np.float32)).astype(np.float64)
    samples = np.stack([first, np.minimum(first + 1, old - 1)], axis=1)
    return Axis(samples, np.stack([1 - fraction, fraction], axis=1), old)


def aligned_axis(old: int, new: int) -> Axis:
    """Bilinear with `align_corners=True`: output i samples position i * (old - 1) / (new - 1)."""
    position = np.arange(new) * ((old - 1) / max(new - 1, 1))
    first = np.floor(position).astype(np.int64).clip(max=max(old - 2, 0))
    fraction = position - first
    samples = np.stack([first, np.minimum(first + 1, old - 1)], axis=1)
    return Axis(samples, np.stack([1 - fraction, fraction], axis=1), old)


def warp_bytes(image: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """OpenCV 4's linear `warpAffine` of uint8 [H, W, C] -> [h, w, C]: integer weights of 1/1024,
    rounded half up."""
    x = _blend(image.to(torch.int32), rows, 0, unit=GRID)
    x = _blend(x, columns, 1, unit=GRID)
    return ((x + FIXED_POINT // 2) // FIXED_POINT).to(torch.uint8)


def resize(image: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """float32 [..., H, W] -> [..., h, w]."""
    return _blend(_blend(image, columns, -1), rows, -2)


@dataclass(frozen=True)
class ScoreMap:
    """Scores of a network and the linear maps that bring them to an image's size.

    Attributes:
        scores: float32 [C, h, w].
        rows, columns: float32 [H, h] and [W, w].
    """

    scores: Tensor
    rows: Tensor
    columns: Tensor


def best_labels(maps: Sequence[ScoreMap]) -> Labels:
    """uint8 [H, W]: the label of the highest sum of scores, the first of equal ones."""
    total = sum(m.rows @ m.scores @ m.columns.mT for m in maps)  # [C, H, W]
    assert isinstance(total, Tensor), "at least one map"
    labels: Labels = total.argmax(dim=0).to(torch.uint8).cpu().numpy()
    return labels


def _blend(x: Tensor, axis: Axis, dim: int, *, unit: int = 1) -> Tensor:
    """`axis` applied along `dim`, its weights multiplied by `unit` and in the type of `x`."""
    shape = [-1 if i == dim % x.dim() else 1 for i in range(x.dim())]
    samples = torch.from_numpy(axis.samples).to(x.device)
    weights = torch.from_numpy(axis.weights * unit).to(x.device, x.dtype)
    first, second = (
        x.index_select(dim, samples[:, k]) * weights[:, k].view(shape) for k in range(2)
    )
    return first + second
