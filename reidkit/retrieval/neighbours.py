"""Exact nearest neighbours of every vector among all, from blocked symmetric products.

The distance matrix is symmetric, so only its upper half is computed: a tile between rows I and
J serves the lists of I and, read downwards, those of J. A list is kept as sortable 64-bit keys,
distance bits above index bits, so that ties fall to the lower index.
"""

# N vectors, K neighbours, I J tiles of rows

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.retrieval.distance import Vectors, blocks, spread

_TILE = 2048
_PAIR_BYTES = 32 * 2**20
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours among all N vectors, each vector being its own first.

    Attributes:
        index: int32 [N, K], nearest first, ties by index.
        distance: float32 [N, K], as `Vectors.distances` measures it.
        farthest: float32 [N], largest distance of each vector to any.
    """

    index: NDArray[np.int32]
    distance: NDArray[np.float32]
    farthest: NDArray[np.float32]


def find_neighbours(
    vectors: Vectors,
    *,
    K: int,
    max_memory: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Neighbours:
    """The K nearest of each vector, itself included, and its largest distance."""
    N = len(vectors)
    size = _TILE
    if max_memory is not None:
        size = max(64, min(_TILE, int((max_memory / 4 / 8) ** 0.5)))
    tiles = blocks(N, min(size, N))
    keys = np.full((N, K), _NONE, dtype=np.int64)
    farthest = np.zeros(N, dtype=np.float32)
    buffer: Tensor | None = None
    done, total = 0, len(tiles) * (len(tiles) + 1) // 2
    for i, (top, bottom) in enumerate(tiles):
        rows = vectors.rows(top, bottom)
        if buffer is None:
            buffer = rows.new_empty((len(rows), len(rows)))
        for left, right in tiles[i:]:
            tile = buffer.view(-1)[: (bottom - top) * (right - left)].view(bottom - top, -1)
            vectors.distances(rows, vectors.squares[top:bottom], left, right, tile)
            if left == top:
                tile.fill_diagonal_(0)
            values = tile.float().cpu().numpy()
            _offer(keys[top:bottom], farthest[top:bottom], values, left)
            if left != top:
                _offer(keys[left:right], farthest[left:right], values.T, top)
            done += 1
            if progress is not None:
                progress("neighbours", done, total)
    distance, index = _unpack(keys)
    return Neighbours(index, distance, farthest)


def pair_distances(
    vectors: Vectors, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Distance between vectors first[p] and second[p] for every pair p: float32 [P]."""
    found = np.empty(len(first), dtype=np.float32)
    D = vectors.parts[0].shape[1]
    for start, stop in blocks(len(first), max(1, _PAIR_BYTES // (4 * D))):
        a, b = vectors.at(first[start:stop]), vectors.at(second[start:stop])
        if vectors.metric == "cosine":
            pairs = 1 - torch.linalg.vecdot(a, b)
        else:
            pairs = (a - b).square_().sum(1)
        found[start:stop] = pairs.clamp_(min=0).float().cpu().numpy()
    return found


def _offer(
    keys: NDArray[np.int64], farthest: NDArray[np.float32], tile: NDArray[np.float32], left: int
) -> None:
    """Lets the columns left.. of a tile [B, C] compete for its rows' lists [B, K], in place."""

    def compete(first: int, last: int) -> None:
        own, part = keys[first:last], tile[first:last]
        np.maximum(farthest[first:last], part.max(axis=1), out=farthest[first:last])
        rows, columns = _near(own, part)
        if not len(rows):
            return
        offered = _pack(part[rows, columns], columns + left)
        counts = np.bincount(rows, minlength=len(own))
        busy = np.flatnonzero(counts)
        width = int(counts.max())
        slots = np.full((len(busy), own.shape[1] + width), _NONE, dtype=np.int64)
        slots[:, : own.shape[1]] = own[busy]
        ends = np.cumsum(counts[busy])
        place = np.arange(len(rows)) - np.repeat(ends - counts[busy], counts[busy])
        slots[np.repeat(np.arange(len(busy)), counts[busy]), own.shape[1] + place] = offered
        slots.sort(axis=1)
        own[busy] = slots[:, : own.shape[1]]

    spread(compete, len(keys))


def _near(
    keys: NDArray[np.int64], tile: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, column) of everything in the tile [B, C] no farther than the row's last neighbour."""
    C, K = tile.shape[1], keys.shape[1]
    worst, _ = _unpack(keys[:, -1:])
    if np.isinf(worst).any() and K < C:  # empty lists: the tile's own K-th value bounds them
        worst = np.minimum(worst, np.partition(tile, K - 1, axis=1)[:, K - 1 : K])
    rows, columns = np.nonzero(tile <= worst)
    return rows, columns


def _pack(values: NDArray[np.float32], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keys that sort by value, then index. The bits of floats of no sign sort like integers."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32).astype(np.int64)
    return (bits << 32) | index


def _unpack(keys: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    empty = keys == _NONE
    values = (keys >> 32).astype(np.int32).view(np.float32).copy()
    values[empty] = np.inf
    return values, (keys & 0xFFFFFFFF).astype(np.int32)
