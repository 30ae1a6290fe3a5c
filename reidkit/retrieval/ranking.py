"""From features to mAP: distances block by block, ranks of the true matches, AP, INP and CMC.

Ranks are all that the metrics need, and a rank is a count of nearer items, so the gallery is never
put in order. No [Q, G] matrix ever exists.
"""

# Q queries, G gallery items, B rows (queries) of one block, R true matches of one query,
# S sampled galleries

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reidkit.choices import ApRule
from reidkit.errors import DataError
from reidkit.retrieval.blocks import Progress, block_rows, chunks, parallel_for, plan_blocks
from reidkit.retrieval.distance import (
    Distances,
    FeatureDistances,
    PrecomputedDistances,
    check_metric,
)
from reidkit.retrieval.embeddings import JUNK, Embeddings, check_same_space
from reidkit.retrieval.metrics import (
    CameraPair,
    RetrievalMetrics,
    average_precision,
    check_ap_rule,
    cmc_curve,
    first_ranks,
    inverse_negative_penalty,
    single_match_precision,
)
from reidkit.retrieval.protocols import (
    GalleryLabels,
    Matches,
    find_matches,
    gallery_parts,
    get_protocol,
    join_labels,
)
from reidkit.retrieval.rerank import RerankConfig, rerank_distances
from reidkit.retrieval.thresholds import PairCounter

_COUNTED = 3
"""Up to this number of matches, one pass over the row per match is faster than sorting it."""
_NEAR = 16
"""If all matches are within the nearest 1/16, only these values are sorted."""
_COUNTED_ON_DEVICE = 64


@dataclass(frozen=True)
class RankingConfig:
    """How a gallery is ranked.

    Attributes:
        protocol: a name in `protocols.PROTOCOLS`.
        metric: "cosine" (features are L2-normalised on the fly) or "euclidean".
        rerank: k-reciprocal re-ranking, or None.
        ap: "step" or "trapezoid", see `metrics.average_precision`.
        seed: of the sampled galleries ("cuhk03-classic").
        max_memory: budget in bytes in addition to the features; None: the fastest block sizes.
        device: of the matrix products; None is the CPU.
    """

    protocol: str = "market"
    metric: str = "cosine"
    rerank: RerankConfig | None = None
    ap: ApRule = "step"
    seed: int = 0
    max_memory: int | None = None
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        get_protocol(self.protocol)
        check_metric(self.metric)
        check_ap_rule(self.ap)


_DEFAULTS = RankingConfig()


def compute_metrics(
    query: Embeddings,
    gallery: Embeddings,
    config: RankingConfig = _DEFAULTS,
    *,
    max_rank: int = 50,
    thresholds: bool = False,
    by_camera: bool = False,
    on_progress: Progress | None = None,
) -> RetrievalMetrics:
    """mAP, mINP and CMC from raw features.

    Args:
        max_rank: length of the CMC curve.
        thresholds: also count all distances, for ROC, open-set rates and verification thresholds.
        by_camera: also evaluate each pair of query and gallery camera.
        on_progress: called as on_progress(stage, done, total).
    Raises:
        DataError: vectors of different lengths, junk among the queries, or a gallery too small
            for re-ranking.
        ConfigError: the memory budget is too small.
    """
    distances, blocks = open_distances(query, gallery, config, on_progress)
    protocol = get_protocol(config.protocol)
    return _metrics_of_blocks(
        distances,
        blocks,
        (query.pids, query.camids),
        join_labels(gallery_parts(query, gallery, protocol)),
        config,
        _Options(max_rank, thresholds, by_camera),
        on_progress,
    )


def metrics_from_distances(
    distances: ArrayLike,
    query_pids: ArrayLike,
    query_camids: ArrayLike,
    gallery: GalleryLabels,
    *,
    protocol: str = "market",
    max_rank: int = 50,
    thresholds: bool = False,
    by_camera: bool = False,
    seed: int = 0,
    ap: ApRule = "step",
) -> RetrievalMetrics:
    """The same from a distance matrix [Q, G], float32 or float64.

    For "mars" the columns are the ranked gallery: query followed by gallery.

    Raises:
        DataError: the matrix is not [Q, G], or contains NaN or infinity.
    """
    matrix = np.asarray(distances)
    pids, camids = np.asarray(query_pids), np.asarray(query_camids)
    if matrix.shape != (len(pids), len(gallery.pids)):
        raise DataError(
            f"the distance matrix has shape {list(matrix.shape)}, expected "
            f"[{len(pids)}, {len(gallery.pids)}]"
        )
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        raise DataError(
            f"the distance matrix contains {len(bad)} NaN or infinite values, the first at "
            f"{bad[0].tolist()}"
        )
    if thresholds and matrix.min() < 0:
        raise DataError(f"thresholds need distances of 0 or more, the least is {matrix.min():g}")
    return _metrics_of_blocks(
        PrecomputedDistances(matrix),
        chunks(len(pids), block_rows(len(gallery.pids))),
        (pids, camids),
        gallery,
        RankingConfig(protocol, seed=seed, ap=ap),
        _Options(max_rank, thresholds, by_camera),
        None,
    )


def open_distances(
    query: Embeddings, gallery: Embeddings, config: RankingConfig, on_progress: Progress | None
) -> tuple[Distances, list[tuple[int, int]]]:
    """Distances between queries and the ranked gallery, and the blocks (start, stop) of rows in
    which to compute them."""
    check_same_space(query, gallery)
    parts = gallery_parts(query, gallery, get_protocol(config.protocol))
    Q, G = len(query), sum(len(part) for part in parts)
    plan = plan_blocks(Q, G, query.dim, rerank=config.rerank, max_memory=config.max_memory)
    distances: Distances
    if config.rerank is None:
        distances = FeatureDistances(query, parts, metric=config.metric, device=config.device)
    else:
        distances = rerank_distances(
            query,
            parts,
            config=config.rerank,
            metric=config.metric,
            tile=plan.tile,
            device=config.device,
            on_progress=on_progress,
        )
    return distances, chunks(Q, plan.rows)


@dataclass(frozen=True)
class _Options:
    """What is computed from the ranking."""

    max_rank: int
    thresholds: bool
    by_camera: bool


def _metrics_of_blocks(
    distances: Distances,
    blocks: list[tuple[int, int]],
    query: tuple[NDArray[np.int64], NDArray[np.int64]],
    gallery: GalleryLabels,
    config: RankingConfig,
    options: _Options,
    on_progress: Progress | None,
) -> RetrievalMetrics:
    """`query` is (pids, camids)."""
    protocol = get_protocol(config.protocol)
    pids, camids = query
    Q = len(pids)
    matches = find_matches(pids, camids, gallery, cameras=protocol.cameras)
    whole = _MatchRanks(matches)
    cameras = [
        (camid, _MatchRanks(matches, np.flatnonzero(gallery.camids == camid)))
        for camid in (np.unique(gallery.camids).tolist() if options.by_camera else [])
    ]
    sampled = (
        _SampledGalleries(matches, gallery, protocol.num_galleries, config.seed)
        if protocol.num_galleries
        else None
    )
    pairs = PairCounter(matches, distances) if options.thresholds else None
    for start, stop in blocks:
        block = distances.block(start, stop)  # [B, G]
        exclude(block, matches, start)
        whole.add(block, start)
        if sampled is not None:
            sampled.add(block, start)
        if pairs is not None:
            pairs.add(block, start)
        for _, part in cameras:
            part.add(block, start)
        if on_progress is not None:
            on_progress("ranking", stop, Q)

    ranks, offsets = whole.sorted(), matches.offsets
    first = first_ranks(ranks, offsets)
    matched = first > 0
    AP = average_precision(ranks, offsets, rule=config.ap)
    INP = inverse_negative_penalty(ranks, offsets)
    nearest = first[:, None] if sampled is None else sampled.ranks  # [Q, 1] or [Q, S]
    if protocol.sampled_precision:  # one true match in each sampled gallery: INP = 1 / rank
        AP[matched] = single_match_precision(nearest[matched], rule=config.ap).mean(axis=1)
        INP[matched] = (1 / nearest[matched]).mean(axis=1)
    junk = int(np.count_nonzero(gallery.roles == JUNK))
    return RetrievalMetrics(
        protocol=protocol.name,
        metric="precomputed" if isinstance(distances, PrecomputedDistances) else config.metric,
        ap=config.ap,
        rerank=None if config.rerank is None else config.rerank.to_dict(),
        average_precision=AP,
        inverse_negative_penalty=INP,
        rank_1=np.where(matched, (nearest == 1).mean(axis=1), np.nan),
        first_ranks=first,
        match_counts=np.diff(offsets),
        pids=pids,
        camids=camids,
        cmc=cmc_curve(nearest.ravel(), options.max_rank),
        gallery_size=len(gallery.pids) - junk,
        junk=junk,
        pairs=None if pairs is None else pairs.statistics(),
        cameras=_camera_pairs(camids, cameras, config.ap) if options.by_camera else None,
    )


def exclude(block: Tensor, matches: Matches, start: int) -> None:
    """Sets distances of excluded items to infinity, in place. `block` is [B, G]."""
    stop = start + len(block)
    low, high = matches.excluded_offsets[start], matches.excluded_offsets[stop]
    counts = np.diff(matches.excluded_offsets[start : stop + 1])
    rows = torch.from_numpy(np.repeat(np.arange(len(block)), counts)).to(block.device)
    columns = torch.from_numpy(matches.excluded[low:high]).to(block.device)
    block[rows, columns] = torch.inf
    if len(matches.junk):
        block[:, torch.from_numpy(matches.junk).to(block.device)] = torch.inf


class _MatchRanks:
    """Ranks of all true matches, in the whole gallery or in some of its columns."""

    def __init__(self, matches: Matches, columns: NDArray[np.int64] | None = None) -> None:
        self._columns = columns
        self.matches = matches if columns is None else matches.within(columns)
        self._ranks = np.empty(len(self.matches.columns), dtype=np.int64)

    def add(self, block: Tensor, start: int) -> None:
        """Ranks queries start.. by their distances [B, G], excluded items at infinity."""
        low, high = self.matches.offsets[start], self.matches.offsets[start + len(block)]
        if low == high:
            return
        if self._columns is not None:
            block = block[:, torch.from_numpy(self._columns).to(block.device)]
        self._ranks[low:high] = match_ranks(block, self.matches, start)

    def sorted(self) -> NDArray[np.int64]:
        """int64 [total], ascending within each query, with the offsets of `matches`."""
        offsets = self.matches.offsets
        owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        return self._ranks[np.lexsort((self._ranks, owner))]


def match_ranks(block: Tensor, matches: Matches, start: int) -> NDArray[np.int64]:
    """Ranks, from 1, of the true matches of queries start.. among the items not excluded.

    An item ranks before another if it is nearer, or as near and earlier in the gallery.

    Args:
        block: distances [B, G], excluded items at infinity.
    Returns:
        int64, one rank per entry of these queries in `matches.columns`, in that order.
    """
    if block.device.type != "cpu":
        return _ranks_on_device(block, matches, start)
    values = block.numpy()
    base = matches.offsets[start]
    ranks = np.empty(matches.offsets[start + len(values)] - base, dtype=np.int64)

    def count(first: int, last: int) -> None:
        for b in range(first, last):
            low, high = matches.offsets[start + b], matches.offsets[start + b + 1]
            ranks[low - base : high - base] = _row_ranks(values[b], matches.columns[low:high])

    parallel_for(count, len(values))
    return ranks


def _row_ranks(row: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """With few matches the row is counted through for each; with more, its values (never
    indices) are sorted once, which takes NumPy 3 ns per value, and each match is looked up."""
    if len(columns) <= _COUNTED:
        return np.array([_count_before(row, column) for column in columns.tolist()], dtype=np.int64)
    values = row[columns]
    within = row <= values.max()
    near = np.count_nonzero(within) * _NEAR < len(row)
    ordered = np.sort(row[within] if near else row)
    before = np.searchsorted(ordered, values, side="left")
    tied = np.searchsorted(ordered, values, side="right") - before > 1
    for i in np.flatnonzero(tied):  # rare: count the equal values that are earlier in the gallery
        before[i] += np.count_nonzero(row[: columns[i]] == values[i])
    return before + 1


def _count_before(row: NDArray[Any], column: int) -> int:
    value = row[column]
    nearer_or_equal = np.count_nonzero(row[:column] <= value)
    return 1 + int(nearer_or_equal + np.count_nonzero(row[column + 1 :] < value))


def _ranks_on_device(block: Tensor, matches: Matches, start: int) -> NDArray[np.int64]:
    B = len(block)
    offsets = matches.offsets[start : start + B + 1]
    counts = np.diff(offsets)
    R = int(counts.max(initial=0))
    if R == 0:
        return np.empty(0, dtype=np.int64)
    owned = np.arange(R) < counts[:, None]  # [B, R], false in the padding
    padded = np.zeros((B, R), dtype=np.int64)
    padded[owned] = matches.columns[offsets[0] : offsets[-1]]
    columns = torch.from_numpy(padded).to(block.device)
    rank = _by_counting if R <= _COUNTED_ON_DEVICE else _by_sorting
    return np.asarray(rank(block, columns).cpu().numpy()[owned], dtype=np.int64)


def _by_counting(block: Tensor, columns: Tensor) -> Tensor:
    values = block.gather(1, columns)
    position = torch.arange(block.shape[1], device=block.device)
    ranks = torch.empty_like(columns)
    for r in range(columns.shape[1]):
        value, column = values[:, r : r + 1], columns[:, r : r + 1]
        nearer = (block < value).sum(1)
        ranks[:, r] = 1 + nearer + ((block == value) & (position < column)).sum(1)
    return ranks


def _by_sorting(block: Tensor, columns: Tensor) -> Tensor:
    order = block.sort(dim=1, stable=True).indices
    ranks = torch.empty_like(order)
    ranks.scatter_(
        1, order, torch.arange(1, block.shape[1] + 1, device=block.device).expand_as(order)
    )
    return ranks.gather(1, columns)


class _SampledGalleries:
    """Rank of the one true match in random galleries of one image per identity.

    Every query samples from its own gallery items with its own generator, so samples depend
    neither on blocks nor on other queries. Distractors are identities apart from persons.
    """

    def __init__(self, matches: Matches, gallery: GalleryLabels, S: int, seed: int) -> None:
        self._matches = matches
        self._seed = seed
        both = np.stack([gallery.pids, gallery.roles.astype(np.int64)], axis=1)
        self._identity = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
        self._by_identity = np.argsort(self._identity, kind="stable")
        self.ranks = np.zeros((len(matches.offsets) - 1, S), dtype=np.int64)
        """int64 [Q, S], from 1; zeros where a query has no match."""

    def add(self, block: Tensor, start: int) -> None:
        values = block.cpu().numpy()

        def sample(first: int, last: int) -> None:
            for b in range(first, last):
                columns = self._matches.of(start + b)
                if len(columns):
                    self.ranks[start + b] = self._sample(values[b], columns[0], start + b)

        parallel_for(sample, len(values))

    def _sample(self, row: NDArray[np.float32], match: int, q: int) -> NDArray[np.int64]:
        ranked = self._by_identity[np.isfinite(row[self._by_identity])]
        identity = self._identity[ranked]
        first = np.flatnonzero(np.r_[True, identity[1:] != identity[:-1]])
        sizes = np.diff(np.r_[first, len(ranked)])
        own = int(np.searchsorted(identity[first], self._identity[match]))
        uniform = np.random.default_rng([self._seed, q]).random((self.ranks.shape[1], len(first)))
        chosen = ranked[first + (uniform * sizes).astype(np.int64)]  # [S, identities]
        values, target = row[chosen], chosen[:, own : own + 1]
        nearer = (values < row[target]) | ((values == row[target]) & (chosen < target))
        ranks: NDArray[np.int64] = 1 + nearer.sum(axis=1)
        return ranks


def _camera_pairs(
    query_camids: NDArray[np.int64], cameras: list[tuple[int, _MatchRanks]], ap: ApRule
) -> tuple[CameraPair, ...]:
    """Means over the queries of each camera pair that has any."""
    pairs = []
    for gallery_camid, part in cameras:
        ranks, offsets = part.sorted(), part.matches.offsets
        AP, first = average_precision(ranks, offsets, rule=ap), first_ranks(ranks, offsets)
        for query_camid in np.unique(query_camids[first > 0]).tolist():
            chosen = (query_camids == query_camid) & (first > 0)
            pairs.append(
                CameraPair(
                    query_camid=query_camid,
                    gallery_camid=gallery_camid,
                    mAP=float(AP[chosen].mean()),
                    rank_1=float(np.mean(first[chosen] == 1)),
                    queries=int(chosen.sum()),
                )
            )
    return tuple(sorted(pairs, key=lambda pair: (pair.query_camid, pair.gallery_camid)))
