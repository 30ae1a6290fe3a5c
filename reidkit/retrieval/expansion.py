"""Features made better by their own neighbours: query expansion, database augmentation, pooling.

All of them return unit vectors, to be compared by cosine. Junk helps nobody.
"""

# Q queries, G gallery items, n neighbours, D embedding

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError, suggest
from reidkit.retrieval.distance import blocks
from reidkit.retrieval.embeddings import JUNK, Embeddings
from reidkit.retrieval.index import top_n
from reidkit.retrieval.rows import Progress

Pooling = Literal["mean", "max"]

_GATHERED_BYTES = 32 * 2**20


def expand_queries(
    query: Embeddings,
    gallery: Embeddings,
    *,
    n: int = 10,
    alpha: float = 0.0,
    max_memory: int | None = None,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> Embeddings:
    """Each query plus its n nearest gallery vectors, normalised.

    q' = q + sum_i cos(q, g_i)^alpha g_i. alpha = 0 is average query expansion (Chum et al.
    2007), alpha > 0 is alpha-QE (Radenovic et al. 2018, sec. 3.4, usually 3); a neighbour on the
    other side (negative cosine) weighs nothing then. No labels are used, so a query's own
    camera counts too.

    Raises:
        ConfigError: n below 1 or alpha below 0.
    """
    _check(n, alpha)
    lists = top_n(query, gallery, n, max_memory=max_memory, device=device, on_progress=on_progress)
    return _blend(query, gallery, lists.indices, lists.distances, alpha, keep_own=True)


def augment_database(
    gallery: Embeddings,
    *,
    n: int = 10,
    alpha: float = 0.0,
    max_memory: int | None = None,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> Embeddings:
    """Each gallery vector replaced by itself plus its n nearest others (Arandjelovic and
    Zisserman 2012, sec. 3.3), weighted as in `expand_queries`. Junk stays as it is."""
    _check(n, alpha)
    seekers = np.flatnonzero(gallery.roles != JUNK)
    if not len(seekers):
        raise DataError(f"{gallery.name}: all {len(gallery)} vectors are junk, nothing to augment")
    people = gallery.take(seekers)
    lists = top_n(
        people, people, n + 1, max_memory=max_memory, device=device, on_progress=on_progress
    )
    # its own vector is in the list already, at a cosine of 1
    made = _blend(people, people, lists.indices, lists.distances, alpha, keep_own=False)
    features = gallery.features / gallery.norms[:, None].astype(np.float32)
    features[seekers] = made.features
    return Embeddings(features, gallery.pids, gallery.camids, gallery.roles, gallery.name)


def pool_queries(query: Embeddings, images: Embeddings, *, pooling: str = "mean") -> Embeddings:
    """Multi-query: each query's vector pooled over all `images` of its person by its camera.

    Market-1501 gives these images in gt_bbox (Zheng et al. 2015, sec. 5.3); the query itself
    takes part only if it is among them. Every vector is normalised before it is pooled.

    Raises:
        DataError: a query has no image.
    """
    if pooling not in get_args(Pooling):
        raise ConfigError(f"unknown pooling {pooling}. {suggest(pooling, get_args(Pooling))}")
    groups: dict[tuple[int, int], list[int]] = {}
    for row, key in enumerate(zip(images.pids.tolist(), images.camids.tolist(), strict=True)):
        groups.setdefault(key, []).append(row)
    pooled = np.empty_like(query.features)
    for q, key in enumerate(zip(query.pids.tolist(), query.camids.tolist(), strict=True)):
        if key not in groups:
            raise DataError(
                f"{images.name} has no image of person {key[0]} by camera {key[1]}, as query {q} "
                f"of {query.name} is: multi-query needs one or more for every query"
            )
        rows = groups[key]
        vectors = images.features[rows] / images.norms[rows, None].astype(np.float32)
        pooled[q] = vectors.mean(axis=0) if pooling == "mean" else vectors.max(axis=0)
    return Embeddings(pooled, query.pids, query.camids, query.roles, query.name)


def _check(n: int, alpha: float) -> None:
    if n < 1:
        raise ConfigError(f"query expansion needs at least one neighbour, got {n}")
    if alpha < 0:
        raise ConfigError(f"query expansion needs an alpha of at least 0, got {alpha}")


def _blend(
    query: Embeddings,
    gallery: Embeddings,
    indices: NDArray[np.int64],
    distances: NDArray[np.float32],
    alpha: float,
    *,
    keep_own: bool,
) -> Embeddings:
    """Unit vectors of the weighted sums; an index of -1 adds nothing."""
    present = indices >= 0
    cosines = np.where(present, 1 - distances, 0)
    weights = np.where(present, 1.0, 0.0) if alpha == 0 else np.maximum(cosines, 0) ** alpha
    scale = (weights / gallery.norms[indices]).astype(np.float32)
    made = np.zeros_like(query.features)
    if keep_own:
        np.divide(query.features, query.norms[:, None].astype(np.float32), out=made)
    size = max(1, _GATHERED_BYTES // (4 * query.dim * indices.shape[1]))
    for start, stop in blocks(len(query), size):
        near = gallery.features[indices[start:stop]]  # [B, n, D]
        made[start:stop] += np.einsum("bn,bnd->bd", scale[start:stop], near)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return Embeddings(made, query.pids, query.camids, query.roles, query.name)
