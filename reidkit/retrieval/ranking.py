"""Evaluation of one set of queries against one gallery, in bounded memory."""

# Q queries, G gallery items, B rows of one block

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.errors import ConfigError
from reidkit.retrieval.distance import DistanceRows, MatrixRows, Rows, block_rows, blocks
from reidkit.retrieval.embeddings import JUNK, Embeddings, check_same_space
from reidkit.retrieval.metrics import (
    average_precision,
    first_ranks,
    inverse_negative_penalty,
    sort_ragged,
)
from reidkit.retrieval.protocols import (
    GalleryLabels,
    Matches,
    Protocol,
    find_matches,
    gallery_parts,
    get_protocol,
    join_labels,
)
from reidkit.retrieval.ranks import exclude, match_ranks
from reidkit.retrieval.report import Report, make_report
from reidkit.retrieval.rerank import RerankConfig, reranked_rows

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, what is done and what there is to do."""


def evaluate(
    query: Embeddings,
    gallery: Embeddings,
    *,
    protocol: str = "market",
    metric: str = "cosine",
    rerank: RerankConfig | None = None,
    max_rank: int = 50,
    max_memory: int | None = None,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """mAP, mINP and CMC by a protocol, exactly, from raw features.

    Distances are made one block of rows at a time; no [Q, G] matrix ever exists.

    Args:
        protocol: a name in `protocols.PROTOCOLS`.
        metric: "cosine" (features are normalised on the fly) or "euclidean".
        rerank: re-rank by k-reciprocal encoding first.
        max_memory: bytes to stay within above the features; None takes what is fast.
        device: where products run; the CPU if None.
    Raises:
        DataError: vectors of different lengths, junk among the queries, or a gallery too small
            for `rerank`.
        ConfigError: an unknown protocol or metric, or a memory budget that is too small.
    """
    rule = get_protocol(protocol)
    check_same_space(query, gallery)
    parts = gallery_parts(query, gallery, rule)
    labels = join_labels(parts)
    rows: Rows
    if rerank is None:
        rows = DistanceRows(query, parts, metric=metric, device=device)
    else:
        rows = reranked_rows(
            query,
            parts,
            config=rerank,
            metric=metric,
            max_memory=max_memory,
            device=device,
            on_progress=on_progress,
        )
    return evaluate_rows(
        rows,
        query.pids,
        query.camids,
        labels,
        rule=rule,
        metric=metric,
        rerank=None if rerank is None else rerank.to_dict(),
        max_rank=max_rank,
        max_memory=max_memory,
        on_progress=on_progress,
    )


def evaluate_distances(
    distances: NDArray[Any],
    query_pids: NDArray[np.int64],
    query_camids: NDArray[np.int64],
    gallery: GalleryLabels,
    *,
    protocol: str = "market",
    max_rank: int = 50,
) -> Report:
    """The same from a distance matrix [Q, G] of any origin (for "mars", queries come first)."""
    return evaluate_rows(
        MatrixRows(distances),
        query_pids,
        query_camids,
        gallery,
        rule=get_protocol(protocol),
        metric="given",
        rerank=None,
        max_rank=max_rank,
    )


def evaluate_rows(
    rows: Rows,
    query_pids: NDArray[np.int64],
    query_camids: NDArray[np.int64],
    gallery: GalleryLabels,
    *,
    rule: Protocol,
    metric: str,
    rerank: dict[str, float] | None,
    max_rank: int,
    max_memory: int | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Scores of whatever gives rows of distances."""
    matches = find_matches(query_pids, query_camids, gallery, cameras=rule.cameras)
    ranks = _all_ranks(rows, matches, max_memory=max_memory, on_progress=on_progress)
    ranks = sort_ragged(ranks, matches.offsets)
    junk = int(np.count_nonzero(gallery.roles == JUNK))
    return make_report(
        protocol=rule.name,
        metric=metric,
        rerank=rerank,
        average_precision=average_precision(ranks, matches.offsets),
        inverse_negative_penalty=inverse_negative_penalty(ranks, matches.offsets),
        first_ranks=first_ranks(ranks, matches.offsets),
        match_counts=np.diff(matches.offsets),
        pids=query_pids,
        camids=query_camids,
        max_rank=max_rank,
        gallery_size=len(gallery.pids) - junk,
        junk=junk,
    )


def _all_ranks(
    rows: Rows, matches: Matches, *, max_memory: int | None, on_progress: Progress | None
) -> NDArray[np.int64]:
    Q, G = rows.shape
    ranks = np.empty(len(matches.columns), dtype=np.int64)
    for start, stop in blocks(Q, rows_within(G, max_memory)):
        block = rows.block(start, stop)
        exclude(block, matches, start)
        low, high = matches.offsets[start], matches.offsets[stop]
        ranks[low:high] = match_ranks(block, matches, start)
        if on_progress is not None:
            on_progress("ranking", stop, Q)
    return ranks


def rows_within(G: int, max_memory: int | None) -> int:
    """Rows of one block under a memory budget. Raises ConfigError if not even one fits."""
    if max_memory is None:
        return block_rows(G)
    # a block, as much again for what is made from it, and the matches themselves
    if max_memory < 8 * 4 * G:
        raise ConfigError(
            f"a memory budget of {max_memory} bytes cannot hold one row of {G} distances: "
            f"give at least {8 * 4 * G}"
        )
    return block_rows(G, budget=max_memory // 3)
