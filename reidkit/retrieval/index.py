"""Exact nearest gallery items of each query: for search and for pictures of ranked lists."""

# Q queries, G gallery items, B rows of one block, n list length

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.errors import ConfigError
from reidkit.retrieval.distance import spread
from reidkit.retrieval.embeddings import Embeddings
from reidkit.retrieval.protocols import find_matches, gallery_parts, get_protocol, join_labels
from reidkit.retrieval.ranks import exclude
from reidkit.retrieval.rerank import RerankConfig
from reidkit.retrieval.rows import Progress, make_rows


@dataclass(frozen=True)
class RankedLists:
    """The nearest gallery items of every query, nearest first, ties by gallery order.

    Attributes:
        indices: int64 [Q, n] into the gallery (under "mars": query followed by gallery); -1
            where a query sees fewer than n items.
        distances: float [Q, n], 1 - cos, Euclidean, or re-ranked; infinite where the index is -1.
    """

    indices: NDArray[np.int64]
    distances: NDArray[Any]


def top_n(
    query: Embeddings,
    gallery: Embeddings,
    n: int,
    *,
    protocol: str = "none",
    metric: str = "cosine",
    rerank: RerankConfig | None = None,
    max_memory: int | None = None,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> RankedLists:
    """The n nearest gallery items of every query among those the protocol lets it see.

    Arguments and errors as in `ranking.evaluate`; the default protocol leaves out junk only.
    """
    if n < 1:
        raise ConfigError(f"a ranked list needs a length of at least 1, got {n}")
    rule = get_protocol(protocol)
    rows, parts = make_rows(
        query,
        gallery,
        rule=rule,
        metric=metric,
        rerank=rerank,
        max_memory=max_memory,
        device=device,
        on_progress=on_progress,
    )
    labels = join_labels(gallery_parts(query, gallery, rule))
    matches = find_matches(query.pids, query.camids, labels, cameras=rule.cameras)
    Q, G = rows.shape
    n = min(n, G)
    indices = np.empty((Q, n), dtype=np.int64)
    distances = np.empty((Q, n), dtype=query.features.dtype)
    for start, stop in parts:
        block = rows.block(start, stop)
        exclude(block, matches, start)
        indices[start:stop], distances[start:stop] = nearest(block, n)
        if on_progress is not None:
            on_progress("searching", stop, Q)
    indices[np.isinf(distances)] = -1
    return RankedLists(indices, rows.to_distance(distances))


def nearest(block: Tensor, n: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Indices and values of the n least of each row of [B, G], least first, ties by index."""
    if block.device.type != "cpu":
        return _nearest_on_device(block, n)
    values = block.numpy()
    indices = np.empty((len(values), n), dtype=np.int64)

    def find(first: int, last: int) -> None:
        for b in range(first, last):
            row = values[b]
            bound = np.partition(row, n - 1)[n - 1]
            found = np.flatnonzero(row <= bound)  # more than n if the last place is tied
            indices[b] = found[np.argsort(row[found], kind="stable")][:n]

    spread(find, len(values))
    return indices, np.take_along_axis(values, indices, axis=1)


def _nearest_on_device(block: Tensor, n: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    bound = block.topk(n, dim=1, largest=False).values[:, -1:]
    rows, columns = (block <= bound).nonzero(as_tuple=True)
    values = block[rows, columns].cpu().numpy()
    owner, found = rows.cpu().numpy(), columns.cpu().numpy()
    order = np.lexsort((found, values, owner))
    first = np.searchsorted(owner, np.arange(len(block)))  # `owner` is ascending already
    chosen = order[first[:, None] + np.arange(n)]
    return found[chosen], values[chosen]
