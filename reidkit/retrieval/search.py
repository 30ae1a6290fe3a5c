"""Search: the nearest gallery items of each query, query expansion and database augmentation.

Expansion, augmentation and pooling return unit vectors, to be compared by cosine. Junk is neither
found nor averaged.
"""

# Q queries, G gallery items, B rows of one block, n list length, D embedding

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.errors import ConfigError, DataError, suggest
from reidkit.retrieval.blocks import MIB, Progress, chunks, parallel_for
from reidkit.retrieval.embeddings import JUNK, Embeddings
from reidkit.retrieval.protocols import find_matches, gallery_parts, get_protocol, join_labels
from reidkit.retrieval.ranking import RankingConfig, exclude, open_distances

Pooling = Literal["mean", "max"]

_GATHERED_BYTES = 32 * MIB
_NO_CAMERAS = RankingConfig(protocol="none")


@dataclass(frozen=True)
class RankedLists:
    """The nearest gallery items of every query, nearest first, ties by gallery order.

    Attributes:
        indices: int64 [Q, n] into the gallery (under "mars": query followed by gallery); -1
            where a query has fewer than n items.
        distances: float [Q, n], 1 - cos, Euclidean, or re-ranked; infinite where the index is -1.
    """

    indices: NDArray[np.int64]
    distances: NDArray[Any]

    def __repr__(self) -> str:
        Q, n = self.indices.shape
        return f"RankedLists({Q} queries, {n} nearest each)"


def top_n(
    query: Embeddings,
    gallery: Embeddings,
    n: int,
    config: RankingConfig = _NO_CAMERAS,
    *,
    on_progress: Progress | None = None,
) -> RankedLists:
    """The n nearest gallery items of every query among those the protocol does not exclude.

    Errors as in `ranking.compute_metrics`; the default protocol excludes junk only.
    """
    if n < 1:
        raise ConfigError(f"a ranked list needs a length of at least 1, got {n}")
    protocol = get_protocol(config.protocol)
    distances, blocks = open_distances(query, gallery, config, on_progress)
    labels = join_labels(gallery_parts(query, gallery, protocol))
    matches = find_matches(query.pids, query.camids, labels, cameras=protocol.cameras)
    Q, G = distances.shape
    n = min(n, G)
    indices = np.empty((Q, n), dtype=np.int64)
    values = np.empty((Q, n), dtype=query.features.dtype)
    for start, stop in blocks:
        block = distances.block(start, stop)
        exclude(block, matches, start)
        indices[start:stop], values[start:stop] = nearest(block, n)
        if on_progress is not None:
            on_progress("searching", stop, Q)
    indices[np.isinf(values)] = -1
    return RankedLists(indices, distances.to_distance(values))


@dataclass(frozen=True)
class NearestMatches:
    """Of every query, the nearest true match and the nearest negative.

    Attributes:
        right, wrong: int64 [Q] into the gallery as in `RankedLists`; -1 where there is none.
        right_distance, wrong_distance: float [Q]; infinite where there is none.
    """

    right: NDArray[np.int64]
    wrong: NDArray[np.int64]
    right_distance: NDArray[Any]
    wrong_distance: NDArray[Any]

    def __repr__(self) -> str:
        return f"NearestMatches({len(self.right)} queries)"


def nearest_matches(
    query: Embeddings,
    gallery: Embeddings,
    config: RankingConfig,
    *,
    on_progress: Progress | None = None,
) -> NearestMatches:
    """The nearest true match and the nearest negative of every query, ties by gallery order.

    Errors as in `ranking.compute_metrics`.
    """
    protocol = get_protocol(config.protocol)
    distances, blocks = open_distances(query, gallery, config, on_progress)
    labels = join_labels(gallery_parts(query, gallery, protocol))
    matches = find_matches(query.pids, query.camids, labels, cameras=protocol.cameras)
    found = np.full((2, len(query)), -1, np.int64)
    values = np.full((2, len(query)), np.inf)
    for start, stop in blocks:
        block = distances.block(start, stop)
        exclude(block, matches, start)
        for b, row in enumerate(block.cpu().numpy()):
            q, own = start + b, matches.of(start + b)
            if len(own):
                found[0, q] = own[row[own].argmin()]
                values[0, q] = row[found[0, q]]
                row[own] = np.inf
            g = int(row.argmin())
            if row[g] < np.inf:
                found[1, q], values[1, q] = g, row[g]
    distance = distances.to_distance(values)
    return NearestMatches(found[0], found[1], distance[0], distance[1])


@dataclass(frozen=True)
class RankedHit:
    """One place of a ranked list that also shows what its protocol excludes.

    Attributes:
        index: into the gallery as in `RankedLists`.
        match: whether it is a true match.
        excluded: whether the protocol leaves it out: junk, or the query's identity by its camera.
    """

    index: int
    distance: float
    match: bool
    excluded: bool


def lists_with_junk(
    query: Embeddings,
    gallery: Embeddings,
    rows: NDArray[np.int64],
    n: int,
    config: RankingConfig,
    *,
    max_excluded: int = 3,
) -> list[list[RankedHit]]:
    """Ranked lists of the queries at `rows`: n items that count, and between them at most
    `max_excluded` that do not. All queries take part in re-ranking.

    Errors as in `ranking.compute_metrics`.
    """
    protocol = get_protocol(config.protocol)
    distances, blocks = open_distances(query, gallery, config, None)
    labels = join_labels(gallery_parts(query, gallery, protocol))
    matches = find_matches(query.pids, query.camids, labels, cameras=protocol.cameras)
    lists: dict[int, list[RankedHit]] = {}
    for start, stop in blocks:
        chosen = rows[(rows >= start) & (rows < stop)]
        if not len(chosen):
            continue
        block = distances.block(start, stop).cpu().numpy()
        for q in chosen.tolist():
            excluded = np.zeros(block.shape[1], np.bool_)
            excluded[matches.junk] = True
            low, high = matches.excluded_offsets[q : q + 2]
            excluded[matches.excluded[low:high]] = True
            order = np.argsort(block[q - start], kind="stable")
            shown = np.cumsum(excluded[order])
            order = order[~excluded[order] | (shown <= max_excluded)]
            counted = np.cumsum(~excluded[order])
            order = order[: np.searchsorted(counted, n) + 1]
            values = distances.to_distance(block[q - start][order])
            own = set(matches.of(q).tolist())
            lists[q] = [
                RankedHit(g, float(d), g in own, bool(excluded[g]))
                for g, d in zip(order.tolist(), values, strict=True)
            ]
    return [lists[q] for q in rows.tolist()]


def nearest(block: Tensor, n: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Indices and values of the n smallest entries of each row of [B, G], ties by index."""
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

    parallel_for(find, len(values))
    return indices, np.take_along_axis(values, indices, axis=1)


def _nearest_on_device(block: Tensor, n: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    bound = block.topk(n, dim=1, largest=False).values[:, -1:]
    rows, columns = (block <= bound).nonzero(as_tuple=True)
    values = block[rows, columns].cpu().numpy()
    owner, found = rows.cpu().numpy(), columns.cpu().numpy()
    order = np.lexsort((found, values, owner))
    first = np.searchsorted(owner, np.arange(len(block)))  # `owner` is ascending
    chosen = order[first[:, None] + np.arange(n)]
    return found[chosen], values[chosen]


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
    """Query expansion: each query plus its n nearest gallery vectors, L2-normalised.

    q' = q + sum_i w_i g_i with w_i = cos(q, g_i)^alpha: alpha-weighted query expansion
    (Radenovic et al. 2018, sec. 3.4, who use alpha = 3); with alpha = 0 all weights are 1, which
    is average query expansion (Chum et al. 2007). Negative cosines get a weight of 0 if
    alpha > 0. No labels are used, so gallery images of the query's own camera take part.

    Raises:
        ConfigError: n below 1 or alpha below 0.
    """
    _check(n, alpha)
    config = RankingConfig("none", max_memory=max_memory, device=device)
    lists = top_n(query, gallery, n, config, on_progress=on_progress)
    return _weighted_sums(query, gallery, lists, alpha, add_query=True)


def augment_database(
    gallery: Embeddings,
    *,
    n: int = 10,
    alpha: float = 0.0,
    max_memory: int | None = None,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> Embeddings:
    """Database-side feature augmentation: each gallery vector plus its n nearest others
    (Arandjelovic and Zisserman 2012, sec. 3.3), weighted as in `expand_queries`.

    Junk is returned L2-normalised and otherwise unchanged.

    Raises:
        ConfigError: n below 1 or alpha below 0.
        DataError: the gallery is all junk.
    """
    _check(n, alpha)
    chosen = np.flatnonzero(gallery.roles != JUNK)
    if not len(chosen):
        raise DataError(f"{gallery.name}: all {len(gallery)} vectors are junk, nothing to augment")
    kept = gallery.take(chosen)
    config = RankingConfig("none", max_memory=max_memory, device=device)
    lists = top_n(kept, kept, n + 1, config, on_progress=on_progress)
    # the vector itself is in its list, with a cosine of 1
    augmented = _weighted_sums(kept, kept, lists, alpha, add_query=False)
    features = gallery.features / gallery.norms[:, None].astype(np.float32)
    features[chosen] = augmented.features
    return Embeddings(features, gallery.pids, gallery.camids, gallery.roles, gallery.name)


def pool_queries(query: Embeddings, images: Embeddings, *, pooling: str = "mean") -> Embeddings:
    """Multi-query: each query replaced by the pooled vectors of all `images` of its identity by
    its camera (Zheng et al. 2015, sec. 5.3).

    Market-1501 provides these images in gt_bbox. The query itself takes part only if it is one
    of them. Vectors are L2-normalised before they are pooled.

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
                f"{images.name} has no image of identity {key[0]} by camera {key[1]} (query {q} of "
                f"{query.name}): multi-query needs at least one for every query"
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


def _weighted_sums(
    query: Embeddings, gallery: Embeddings, lists: RankedLists, alpha: float, *, add_query: bool
) -> Embeddings:
    """Unit vectors of the weighted sums; an index of -1 adds nothing."""
    present = lists.indices >= 0
    cosines = np.where(present, 1 - lists.distances, 0)
    weights = np.where(present, 1.0, 0.0) if alpha == 0 else np.maximum(cosines, 0) ** alpha
    scale = (weights / gallery.norms[lists.indices]).astype(np.float32)
    sums = np.zeros_like(query.features)
    if add_query:
        np.divide(query.features, query.norms[:, None].astype(np.float32), out=sums)
    size = max(1, _GATHERED_BYTES // (4 * query.dim * lists.indices.shape[1]))
    for start, stop in chunks(len(query), size):
        neighbours = gallery.features[lists.indices[start:stop]]  # [B, n, D]
        sums[start:stop] += np.einsum("bn,bnd->bd", scale[start:stop], neighbours)
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    return Embeddings(sums, query.pids, query.camids, query.roles, query.name)
