"""How large blocks may be, and what a ranking will cost before it starts."""

# Q queries, G gallery items, N = Q + G, D embedding, K neighbours kept

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from reidkit.errors import ConfigError
from reidkit.retrieval.distance import MIB, block_rows
from reidkit.retrieval.neighbours import TILE
from reidkit.retrieval.products import pick_product
from reidkit.retrieval.rerank import RerankConfig

_ENTRIES = 6  # times k1: entries of an encoding after query expansion, on the safe side
_TRIPLE = 3 * 8  # bytes of an entry: index and value, in up to three copies at a time
_OVERHEAD = 48 * MIB  # what the libraries' products and sorts take for themselves

# measured on one core of a 2.6 GHz Xeon; products are measured where the forecast is made
_READ_SECONDS = 1.0e-9  # scaling and ranking, per distance and thread
_MERGE_SECONDS = 1.5e-9  # neighbour lists, per distance and thread
_ENCODE_SECONDS = 50e-6  # per vector
_JACCARD_SECONDS = 150e-6  # per query


@dataclass(frozen=True)
class Plan:
    """Sizes that keep within a memory budget.

    Attributes:
        rows: rows of one block of distances.
        tile: side of one tile of the neighbour search; 0 without re-ranking.
        memory: bytes at the peak, above the features and without the libraries' own.
        products: multiply-adds of all matrix products.
    """

    rows: int
    tile: int
    memory: int
    products: int


@dataclass(frozen=True)
class Forecast:
    """What an evaluation will take.

    Attributes:
        seconds: on this machine as it is now.
        memory: bytes above the features at the peak.
        products: multiply-adds of its matrix products.
    """

    seconds: float
    memory: int
    products: int


def make_plan(
    Q: int, G: int, D: int, *, rerank: RerankConfig | None = None, max_memory: int | None = None
) -> Plan:
    """Block sizes for Q queries, G ranked gallery items and vectors of length D.

    Raises:
        ConfigError: the budget is too small; the message names what would do.
    """
    row = 4 * (G + D) + 4 * G  # a row of distances, its vector, and what is read off it
    fixed = 24 * (Q + G) + 16 * MIB  # labels, and a row or two of scratch for each thread
    if rerank is None:
        least, lists = fixed + row, 0
    else:
        N, K = Q + G, max(rerank.k1 + 1, rerank.k2)
        lists = 16 * N * K
        sparse = _TRIPLE * N * _ENTRIES * rerank.k1
        fixed += sparse
        least = max(fixed + row, fixed - sparse + lists + _tile_bytes(64, D))
    if max_memory is None:
        rows, tile = block_rows(G), min(TILE, Q + G)
    elif max_memory < least:
        what = "one row of distances" if rerank is None else f"re-ranking {Q + G} vectors"
        raise ConfigError(
            f"a memory budget of {max_memory / MIB:.0f} MiB is too small for {what}: give at "
            f"least {least / MIB + 1:.0f} MiB" + ("" if rerank is None else " or a smaller k1")
        )
    else:
        rows = max(1, block_rows(G, budget=(max_memory - fixed) * 4 * G // row))
        tile = min(TILE, Q + G)
        while tile > 64 and lists + _tile_bytes(tile, D) > max_memory:
            tile //= 2
    memory = fixed + min(rows, Q) * row
    if rerank is None:
        return Plan(rows, 0, memory, Q * G * D)
    memory = max(memory, lists + _tile_bytes(tile, D))
    return Plan(rows, tile, memory, Q * G * D + (Q + G) ** 2 // 2 * D)


def forecast(
    Q: int,
    G: int,
    D: int,
    *,
    rerank: RerankConfig | None = None,
    max_memory: int | None = None,
    device: torch.device | str | None = None,
) -> Forecast:
    """Seconds and memory for Q queries against G gallery items, from a product of 50 ms or so.

    Within a factor of two on an idle machine; junk counts as gallery.

    Raises:
        ConfigError: as `make_plan`.
    """
    plan = make_plan(Q, G, D, rerank=rerank, max_memory=max_memory)
    threads = torch.get_num_threads()
    other = Q * G * _READ_SECONDS / threads
    if rerank is not None:
        N = Q + G
        other += N * N / 2 * _MERGE_SECONDS / threads
        other += N * _ENCODE_SECONDS + Q * _JACCARD_SECONDS
    speed = _products_per_second(D, torch.device(device or "cpu"), plan.products)
    return Forecast(plan.products / speed + other, plan.memory + _OVERHEAD, plan.products)


def _tile_bytes(tile: int, D: int) -> int:
    return 4 * tile * (tile + D) + tile * tile  # the tile, its rows, and one comparison


def _products_per_second(D: int, device: torch.device, products: int) -> float:
    product = pick_product(products, D, device)
    rows, columns = torch.ones((256, D), device=device), torch.ones((2048, D), device=device)
    out = torch.empty((256, 2048), device=device)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        product(rows, columns, out)
        out[0, 0].item()  # reading one value waits for the device
        best = min(best, time.perf_counter() - began)
    return 256 * 2048 * D / best
