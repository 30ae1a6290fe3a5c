"""How work is divided: blocks of distances within a memory budget, chunks of rows, threads."""

# Q queries, G gallery items, D embedding, N = Q + G, K neighbours per list

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from reidkit.retrieval.rerank import RerankConfig

Progress = Callable[[str, int, int], None]
"""on_progress(stage, done, total)."""

MIB = 2**20
BLOCK_BYTES = 144 * MIB
"""Largest block of distances without a memory budget. Every block reads the whole gallery, so
blocks of few rows are slow: 200 rows take 12 % longer than 500."""
BLOCK_ROWS = 1024
"""Most rows of one block; larger blocks are not faster."""
TILE = 2048
"""Side of one tile of the neighbour search without a memory budget: 16 MiB."""

_MIN_TILE = 64
_ENTRIES = 6  # times k1: upper estimate of the entries of an encoding after query expansion
_TRIPLE = 3 * 8  # bytes of an entry: index and value, in up to three copies at a time


@dataclass(frozen=True)
class BlockPlan:
    """Block sizes that keep within a memory budget.

    Attributes:
        rows: rows of one block of distances.
        tile: side of one tile of the neighbour search; 0 without re-ranking.
        memory: peak in bytes, not counting features and the buffers of libraries.
    """

    rows: int
    tile: int
    memory: int


def plan_blocks(
    Q: int, G: int, D: int, *, rerank: RerankConfig | None = None, max_memory: int | None = None
) -> BlockPlan:
    """Block sizes for Q queries, G ranked gallery items and vectors of length D.

    Args:
        max_memory: bytes in addition to the features; None: the fastest sizes.

    Raises:
        ConfigError: the budget is too small; the message gives the smallest sufficient one.
    """
    row = 4 * (G + D) + 4 * G  # a row of distances, its vector, and a copy while it is ranked
    fixed = 24 * (Q + G) + 16 * MIB  # labels, and a row or two of scratch for each thread
    if rerank is None:
        least, lists = fixed + row, 0
    else:
        N, K = Q + G, max(rerank.k1 + 1, rerank.k2)
        lists = 16 * N * K
        sparse = _TRIPLE * N * _ENTRIES * rerank.k1
        fixed += sparse
        least = max(fixed + row, fixed - sparse + lists + _tile_bytes(_MIN_TILE, D))
    tile = min(TILE, Q + G)
    if max_memory is None:
        rows = block_rows(G)
    elif max_memory < least:
        work = "one row of distances" if rerank is None else f"re-ranking {Q + G} vectors"
        raise ConfigError(
            f"a memory budget of {max_memory / MIB:.0f} MiB is too small for {work}: use at "
            f"least {least / MIB + 1:.0f} MiB" + ("" if rerank is None else " or a smaller k1")
        )
    else:
        rows = max(1, block_rows(G, budget=(max_memory - fixed) * 4 * G // row))
        while tile > _MIN_TILE and lists + _tile_bytes(tile, D) > max_memory:
            tile //= 2
    memory = fixed + min(rows, Q) * row
    if rerank is None:
        return BlockPlan(rows, 0, memory)
    return BlockPlan(rows, tile, max(memory, lists + _tile_bytes(tile, D)))


def block_rows(G: int, *, budget: int | None = None) -> int:
    """Number of rows of G float32 distances that fit the budget in bytes, at least one."""
    return max(1, min(BLOCK_ROWS, (BLOCK_BYTES if budget is None else budget) // (4 * G)))


def chunks(count: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of consecutive chunks of 0..count, each of at most `size`."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def parallel_for(function: Callable[[int, int], None], count: int) -> None:
    """Runs function(start, stop) on 0..count, divided into one range per torch thread.

    NumPy releases the interpreter lock inside its loops, and on a CPU its element-wise loops are
    several times as fast as torch's, so torch is used for matrix products only.
    """
    workers = min(torch.get_num_threads(), count)
    if workers <= 1:
        function(0, count)
        return
    edges = np.linspace(0, count, workers + 1).astype(int).tolist()
    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(function, a, b) for a, b in pairwise(edges)]:
            future.result()


def _tile_bytes(tile: int, D: int) -> int:
    return 4 * tile * (tile + D) + tile * tile  # the tile, its rows, and one comparison
