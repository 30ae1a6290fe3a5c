"""Where a mask is sampled, and how the samples are packed into bytes.

The part-attention loss (REFERENCE: Hou et al. 2020, eq. 10, and the authors' code) compares an
attention map with the mask resized bicubically to the network's input and then bilinearly, with
aligned corners, to the attention map's size: in effect with the mask at the points of a grid that
reaches from corner to corner. So the store keeps the mask at those points and no others: the
grids of the second and third stage at 256x128 (32x16, 16x8) and at half that size (16x8, 8x4).
Reading spreads the points over a map of 63x31, whose every second row and column is a row and
column of the 32x16 grid; resizing that map with aligned corners gives the targets back.
`benchmarks/mask_store.py` measures how nearly, and what other choices would give.
"""

# H W pixels of the mask, h w of a grid, K points, N masks, L labels (parts and background)

from __future__ import annotations

from fractions import Fraction
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

Grids = tuple[tuple[int, int], ...]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

GRIDS: Grids = ((32, 16), (16, 8), (8, 4))
CANVAS = (256, 128)
"""The network's input, (height, width), to which the authors resize the mask first."""
MAP_SIZE = (63, 31)
"""(height, width) of the maps that are read."""


@cache
def _points(grids: Grids) -> tuple[tuple[tuple[Fraction, Fraction], ...], tuple[int, ...]]:
    """Points of all grids, each once, as fractions of height and width; where each first stands."""
    seen: dict[tuple[Fraction, Fraction], int] = {}
    position = 0
    for height, width in grids:
        for y in range(height):
            for x in range(width):
                point = (Fraction(y, height - 1), Fraction(x, width - 1))
                seen.setdefault(point, position)
                position += 1
    return tuple(seen), tuple(seen.values())


def num_points(grids: Grids) -> int:
    """K, the number of different points of all grids."""
    return len(_points(grids)[0])


def cells_per_byte(num_labels: int) -> int:
    """How many values of 0..num_labels-1 one byte holds as digits of that base."""
    cells = 1
    while num_labels ** (cells + 1) <= 256:
        cells += 1
    return cells


def row_bytes(grids: Grids, num_labels: int) -> int:
    """Bytes of one packed mask."""
    return -(-num_points(grids) // cells_per_byte(num_labels))


@lru_cache(maxsize=2048)  # images come in many sizes
def resize_matrix(length: int, canvas: int, grid: int) -> Floats:
    """[grid, length]: bicubic resize from `length` to `canvas` pixels, then bilinear to `grid`.

    The bicubic step is Pillow's (a = -0.5, widened when it shrinks), the bilinear one PyTorch's
    with align_corners=True. Every row sums to one.
    """
    scale = length / canvas
    stretch = max(scale, 1.0)
    centres = (np.arange(canvas) + 0.5) * scale
    pixels = np.arange(length) + 0.5
    distance = np.abs(pixels[None, :] - centres[:, None]) / stretch
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    bicubic = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    bicubic /= bicubic.sum(axis=1, keepdims=True)

    position = np.arange(grid) * ((canvas - 1) / (grid - 1))
    lower = np.minimum(position.astype(int), canvas - 2)
    share = (position - lower)[:, None]
    matrix: Floats = ((1 - share) * bicubic[lower] + share * bicubic[lower + 1]).astype(np.float32)
    return matrix


def sample_points(part_map: Bytes, *, num_labels: int, grids: Grids = GRIDS) -> Bytes:
    """The part with the greatest share of the authors' target at each point: uint8 [K].

    Args:
        part_map: part indices uint8 [H, W], below `num_labels`.
    """
    H, W = part_map.shape
    planes = (part_map == np.arange(num_labels, dtype=np.uint8)[:, None, None]).astype(np.float32)
    values = []
    for height, width in grids:
        rows = resize_matrix(H, CANVAS[0], height)
        columns = resize_matrix(W, CANVAS[1], width)
        shares = rows @ (planes @ columns.T)  # [h, H] @ [L, H, W] @ [W, w] -> [L, h, w]
        values.append(shares.argmax(axis=0).astype(np.uint8).ravel())
    return np.concatenate(values)[list(_points(grids)[1])]


def pack(values: Bytes, *, num_labels: int) -> Bytes:
    """Values uint8 [N, K] below `num_labels` -> uint8 [N, bytes]; the first is the lowest digit."""
    cells = cells_per_byte(num_labels)
    N, K = values.shape
    padded = np.zeros((N, -(-K // cells) * cells), np.uint8)
    padded[:, :K] = values
    weights = (num_labels ** np.arange(cells)).astype(np.uint8)
    packed: Bytes = (padded.reshape(N, -1, cells) * weights).sum(axis=2, dtype=np.uint8)
    return packed


@cache
def unpack_table(num_labels: int) -> Bytes:
    """uint8 [256, cells]: the digits of a byte; bytes that `pack` never writes give valid ones."""
    cells = cells_per_byte(num_labels)
    digits = np.arange(256)[:, None] // num_labels ** np.arange(cells)[None, :] % num_labels
    return digits.astype(np.uint8)


@cache
def spread_index(grids: Grids, size: tuple[int, int]) -> npt.NDArray[np.intp]:
    """int [h * w]: for each pixel of a map of `size`, the nearest of the points (corners align)."""
    points = np.array([(float(y), float(x)) for y, x in _points(grids)[0]])
    height, width = size
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    reach = np.array([CANVAS[0] - 1, CANVAS[1] - 1])  # nearest in pixels of the canvas
    pixels = np.stack([y.ravel(), x.ravel()], axis=1)
    offset = (pixels[:, None] - points[None]) * reach
    nearest: npt.NDArray[np.intp] = (offset**2).sum(axis=2).argmin(axis=1)
    return nearest


def spread(rows: Bytes, *, num_labels: int, grids: Grids, size: tuple[int, int]) -> Bytes:
    """Packed masks uint8 [N, bytes] -> part indices uint8 [N, h, w] of `size`."""
    values = unpack_table(num_labels).take(rows, axis=0).reshape(len(rows), -1)
    # mode="clip" spares numpy a copy; the index is in range by construction
    return values.take(spread_index(grids, size), axis=1, mode="clip").reshape(len(rows), *size)
