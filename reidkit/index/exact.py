"""Exact search by cosine in a gallery that is read block by block, in NumPy.

The gallery may be larger than the memory: a block is multiplied, the few entries that are better
than the n-th best so far are kept, and the block is forgotten. That bound is why the search costs
little more than the products, and why its first blocks are small.
"""

# Q queries, G gallery items, B rows of one block, n list length, D embedding

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

FIRST_BLOCK = 2048
"""Rows of the first block, in which every entry is a candidate; later ones grow by `GROWTH`."""
GROWTH = 4
BLOCK_BYTES = 1 << 26
"""Largest block of gallery vectors, and of cosines."""
QUERY_ROWS = 256
"""Queries that are searched together."""

Block = Callable[[int, int], NDArray[np.float32]]
"""block(start, stop) -> unit vectors float32 [stop - start, D] of the gallery."""


def search_exact(
    queries: NDArray[np.float32],
    block: Block,
    G: int,
    n: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The n gallery items of the highest cosine for every query, ties by gallery order.

    Args:
        queries: unit vectors float32 [Q, D].
        block: reads a range of the gallery's G rows; called with ascending ranges, once per
            `QUERY_ROWS` queries.
        allowed: bool [G], the items that may be found; None: all.

    Returns:
        int64 [Q, n] rows of the gallery and float32 [Q, n] cosines, best first; -1 and -inf where
        a query has fewer than n items.
    """
    Q, D = queries.shape
    indices = np.full((Q, n), -1, np.int64)
    cosines = np.full((Q, n), -np.inf, np.float32)
    buffer = np.empty(0, np.float32)  # reused: fresh pages would cost a third of the product
    for first in range(0, Q, QUERY_ROWS):
        rows = slice(first, min(first + QUERY_ROWS, Q))
        best = _Best(indices[rows], cosines[rows])
        for start, stop in _block_ranges(G, D, rows.stop - rows.start):
            shape = (rows.stop - rows.start, stop - start)
            if buffer.size < shape[0] * shape[1]:
                buffer = np.empty(shape[0] * shape[1], np.float32)
            scores = buffer[: shape[0] * shape[1]].reshape(shape)
            np.matmul(queries[rows], block(start, stop).T, out=scores)
            if allowed is not None:
                scores[:, ~allowed[start:stop]] = -np.inf
            best.update(scores, start)
    return indices, cosines


def _block_ranges(G: int, D: int, Q: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks that grow from `FIRST_BLOCK` to `BLOCK_BYTES`."""
    largest = max(FIRST_BLOCK, BLOCK_BYTES // (4 * max(D, Q)))
    start, rows = 0, FIRST_BLOCK
    while start < G:
        stop = min(start + rows, G)
        yield start, stop
        start, rows = stop, min(rows * GROWTH, largest)


class _Best:
    """The best items so far of some queries, in arrays of the caller."""

    def __init__(self, indices: NDArray[np.int64], cosines: NDArray[np.float32]) -> None:
        self.indices = indices  # [Q, n]
        self.cosines = cosines

    def update(self, scores: NDArray[np.float32], start: int) -> None:
        """Merges the scores [Q, B] of gallery items start..start+B."""
        Q, n = self.indices.shape
        bound = self.cosines[:, -1]
        B = scores.shape[1]
        if n < B and np.isneginf(bound).any():  # lists are not full yet: this block bounds them
            tied = np.partition(scores, B - n, axis=1)[:, B - n]
            within = scores >= np.maximum(bound, tied)[:, None]
            within &= scores > -np.inf
        else:
            within = scores > bound[:, None]  # an equal one comes later in gallery order
        rows, columns = np.divmod(np.flatnonzero(within), B)  # much faster than nonzero in 2-D
        if not len(rows):
            return
        owner = np.concatenate([np.repeat(np.arange(Q), n), rows])
        index = np.concatenate([self.indices.ravel(), columns + start])
        cosine = np.concatenate([self.cosines.ravel(), scores[rows, columns]])
        order = np.lexsort((index, -cosine, owner))
        first = np.searchsorted(owner[order], np.arange(Q))
        chosen = order[first[:, None] + np.arange(n)]
        self.indices[:] = index[chosen]
        self.cosines[:] = cosine[chosen]
