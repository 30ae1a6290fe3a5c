"""The rows of distances that a protocol, a metric and a re-ranking ask for."""

# Q queries, G gallery items

from __future__ import annotations

from collections.abc import Callable

import torch

from reidkit.retrieval.distance import DistanceRows, Rows, blocks, check_metric
from reidkit.retrieval.embeddings import Embeddings, check_same_space
from reidkit.retrieval.plan import make_plan
from reidkit.retrieval.products import pick_product
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
) -> tuple[Rows, list[tuple[int, int]]]:
    """Distances [Q, G] between queries and the gallery that the protocol ranks, made on demand,
    and the blocks (start, stop) to take them in."""
    check_same_space(query, gallery)
    check_metric(metric)
    parts = gallery_parts(query, gallery, rule)
    Q, G = len(query), sum(len(part) for part in parts)
    plan = make_plan(Q, G, query.dim, rerank=rerank, max_memory=max_memory)
    place = torch.device(device or "cpu")
    product = pick_product(plan.products, query.dim, place)
    rows: Rows
    if rerank is None:
        rows = DistanceRows(query, parts, metric=metric, device=place, product=product)
    else:
        rows = reranked_rows(
            query,
            parts,
            config=rerank,
            metric=metric,
            tile=plan.tile,
            device=place,
            product=product,
            on_progress=on_progress,
        )
    return rows, blocks(Q, plan.rows)
