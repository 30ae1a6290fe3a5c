"""Exact nearest neighbours of every vector among all, from blocked symmetric products.

The distance matrix is symmetric, so only its upper half is computed: a tile between rows I and J
updates the lists of I by its rows and those of J by its columns. A list is kept as sortable 64-bit
keys, distance bits above index bits, so that ties go to the lower index.
"""

# N vectors, K neighbours, I J tiles of rows

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.retrieval.blocks import TILE, Progress, chunks, parallel_for
from reidkit.retrieval.distance import Vectors

_SCANNED = 64  # rows of a tile read at a time: half a megabyte
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours among all N vectors; each vector is its own first neighbour.

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
    tile: int = TILE,
    on_progress: Progress | None = None,
) -> Neighbours:
    """The K nearest of each vector, itself included, and its largest distance.

    Args:
        tile: rows and columns of one product.
    """
    N = len(vectors)
    tiles = chunks(N, min(tile, N))
    keys = np.full((N, K), _NONE, dtype=np.int64)
    farthest = np.zeros(N, dtype=np.float32)
    # the diagonal first: it fills every list, so that bounds are tight for the other tiles
    schedule = [(own, [own]) for own in tiles]
    schedule += [(own, tiles[i + 1 :]) for i, own in enumerate(tiles[:-1])]
    buffer = torch.empty(0)
    done, total = 0, len(tiles) * (len(tiles) + 1) // 2
    for (top, bottom), others in schedule:
        rows = vectors.rows(top, bottom)
        if not len(buffer):
            buffer = rows.new_empty(len(rows) ** 2)
        for left, right in others:
            block = buffer[: (bottom - top) * (right - left)].view(bottom - top, right - left)
            vectors.distances(rows, vectors.squares[top:bottom], left, right, block)
            if left == top:
                block.fill_diagonal_(0)
                values = block.cpu().numpy()
                _seed(keys[top:bottom], farthest[top:bottom], values, top, vectors.zero)
            else:
                values = block.cpu().numpy()
                _exchange(keys, farthest, values, top, left, vectors.zero)
            done += 1
            if on_progress is not None:
                on_progress("neighbours", done, total)
    distance, index = _unpack(keys)
    return Neighbours(index, distance, farthest)


def _seed(
    keys: NDArray[np.int64],
    farthest: NDArray[np.float32],
    tile: NDArray[np.float32],
    left: int,
    zero: np.float32,
) -> None:
    """Fills empty lists [B, K] from their rows of a tile [B, C], in place."""
    C, K = tile.shape[1], keys.shape[1]

    def fill(first: int, last: int) -> None:
        for start in range(first, last, _SCANNED):
            rows = slice(start, min(start + _SCANNED, last))
            part = tile[rows]
            farthest[rows] = part.max(axis=1)
            kth = np.partition(part, K - 1, axis=1)[:, K - 1] if K < C else farthest[rows]
            hits = np.flatnonzero(part <= np.maximum(kth, zero)[:, None])
            _merge(keys[rows], hits // C, _pack(part.ravel()[hits], hits % C + left, zero))

    parallel_for(fill, len(tile))


def _exchange(
    keys: NDArray[np.int64],
    farthest: NDArray[np.float32],
    tile: NDArray[np.float32],
    top: int,
    left: int,
    zero: np.float32,
) -> None:
    """Merges a tile [B, C] between rows top.. and rows left.. into the lists of both."""
    B, C = tile.shape
    own, other = slice(top, top + B), slice(left, left + C)
    row_bound = np.maximum(_worst(keys[own]), zero)[:, None]
    column_bound = np.maximum(_worst(keys[other]), zero)
    in_rows: dict[int, NDArray[np.int64]] = {}  # positions in the flattened tile, by first row
    in_columns: dict[int, NDArray[np.int64]] = {}
    column_max: dict[int, NDArray[np.float32]] = {}

    def scan(first: int, last: int) -> None:
        for start in range(first, last, _SCANNED):  # rows that fit the cache
            rows = slice(start, min(start + _SCANNED, last))
            part = tile[rows]
            np.maximum(farthest[own][rows], part.max(axis=1), out=farthest[own][rows])
            column_max[start] = part.max(axis=0)
            in_rows[start] = np.flatnonzero(part <= row_bound[rows]) + start * C
            in_columns[start] = np.flatnonzero(part <= column_bound) + start * C

    parallel_for(scan, B)
    starts = sorted(in_rows)
    np.maximum(
        farthest[other], np.max([column_max[s] for s in starts], axis=0), out=farthest[other]
    )

    def merge(first: int, last: int) -> None:
        for side in range(first, last):
            hits = np.concatenate([(in_columns if side else in_rows)[s] for s in starts])
            rows, columns = hits // C, hits % C
            if side:
                order = np.argsort(columns, kind="stable")
                offered = _pack(tile.ravel()[hits], rows + top, zero)[order]
                _merge(keys[other], columns[order], offered)
            else:
                _merge(keys[own], rows, _pack(tile.ravel()[hits], columns + left, zero))

    parallel_for(merge, 2)


def _worst(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Distance of each list's last neighbour; infinite while the list is not full."""
    return _unpack(keys[:, -1])[0]


def _merge(keys: NDArray[np.int64], rows: NDArray[np.int64], offered: NDArray[np.int64]) -> None:
    """Keeps the smallest keys of each list [B, K] and of those offered to it, in place.

    Args:
        rows: the list of each offered key, ascending.
    """
    if not len(rows):
        return
    K = keys.shape[1]
    counts = np.bincount(rows, minlength=len(keys))
    updated = np.flatnonzero(counts)
    counts = counts[updated]
    slots = np.full((len(updated), K + int(counts.max())), _NONE, dtype=np.int64)
    slots[:, :K] = keys[updated]
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    slots[np.repeat(np.arange(len(updated)), counts), K + place] = offered
    slots.sort(axis=1)
    keys[updated] = slots[:, :K]


def _pack(
    values: NDArray[np.float32], index: NDArray[np.int64], zero: np.float32
) -> NDArray[np.int64]:
    """Keys that sort by value, then index: bits of non-negative floats sort like integers.

    Values up to `zero` are rounding errors of equal vectors: they become 0, so that ties are
    broken by index.
    """
    bits = np.where(values <= zero, np.float32(0), values).view(np.int32).astype(np.int64)
    return (bits << 32) | index


def _unpack(keys: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    empty = keys == _NONE
    values = (keys >> 32).astype(np.int32).view(np.float32).copy()
    values[empty] = np.inf
    return values, (keys & 0xFFFFFFFF).astype(np.int32)
