"""Resizing images, scores and labels, as parsers expect it of their surroundings."""

# C planes, H W pixels

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def resize(planes: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear, pixel centres aligned, no smoothing when it shrinks (as OpenCV and PyTorch do):
    [C, H, W] -> [C, *size]."""
    rows = _bilinear(planes.shape[1], size[0])
    columns = _bilinear(planes.shape[2], size[1])
    return np.asarray(rows @ planes @ columns.T, np.float32)


def pad_to_aspect(image: Bytes, aspect: float) -> tuple[Bytes, tuple[slice, slice]]:
    """The image [H, W, 3] between black bars so that width / height = `aspect`, and where in the
    result it is."""
    H, W = image.shape[:2]
    height, width = max(H, round(W / aspect)), max(W, round(H * aspect))
    top, left = (height - H) // 2, (width - W) // 2
    inside = (slice(top, top + H), slice(left, left + W))
    padded = np.zeros((height, width, 3), np.uint8)
    padded[inside] = image
    return padded, inside


def nearest(plane: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Nearest pixel, centres aligned: [H, W] -> `size`."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for old, new in zip(plane.shape, size, strict=True)
    )
    return np.asarray(plane[rows[:, None], columns[None, :]])


@lru_cache(maxsize=128)  # images come in many sizes
def _bilinear(old: int, new: int) -> Floats:
    """[new, old]"""
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    lower = np.minimum(position.astype(int), max(old - 2, 0))
    share = (position - lower).astype(np.float32)
    matrix = np.zeros((new, old), np.float32)
    np.add.at(matrix, (np.arange(new), lower), 1 - share)
    np.add.at(matrix, (np.arange(new), np.minimum(lower + 1, old - 1)), share)
    return matrix
