"""The rows of distances that a protocol, a metric and a re-ranking ask for."""

# Q queries, G gallery items

from __future__ import annotations

from collections.abc import Callable

import torch

from reidkit.errors import ConfigError
from reidkit.retrieval.distance import DistanceRows, Rows, block_rows
from reidkit.retrieval.embeddings import Embeddings, check_same_space
from reidkit.retrieval.protocols import Protocol, gallery_parts
from reidkit.retrieval.rerank import RerankConfig, reranked_rows

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, what is done and what there is to do."""


def make_rows(
    query: Embeddings,
    gallery: Embeddings,
    *,
    rule: Protocol,
    metric: str,
    rerank: RerankConfig | None,
    max_memory: int | None,
    device: torch.device | str | None,
    on_progress: Progress | None,
) -> Rows:
    """Distances [Q, G] between queries and the gallery that the protocol ranks, on demand."""
    check_same_space(query, gallery)
    parts = gallery_parts(query, gallery, rule)
    rows_within(sum(len(part) for part in parts), max_memory)  # refuse before any work
    if rerank is None:
        return DistanceRows(query, parts, metric=metric, device=device)
    return reranked_rows(
        query,
        parts,
        config=rerank,
        metric=metric,
        max_memory=max_memory,
        device=device,
        on_progress=on_progress,
    )


def rows_within(G: int, max_memory: int | None) -> int:
    """Rows of one block under a memory budget. Raises ConfigError if not even one fits."""
    if max_memory is None:
        return block_rows(G)
    # a third for the block; the rest for what is made from it and for the matches themselves
    least = 8 * 4 * G
    if max_memory < least:
        raise ConfigError(
            f"a memory budget of {max_memory} bytes cannot hold one row of {G} distances: "
            f"give at least {least}"
        )
    return block_rows(G, budget=max_memory // 3)
