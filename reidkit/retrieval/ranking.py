"""Evaluation of one set of queries against one gallery, in bounded memory."""

# Q queries, G gallery items, B rows of one block, S drawn galleries

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from reidkit.errors import DataError
from reidkit.retrieval.collect import (
    CameraCollector,
    Collector,
    PairCollector,
    RankCollector,
    SampledGalleryCollector,
)
from reidkit.retrieval.distance import MatrixRows, Rows, block_rows, blocks
from reidkit.retrieval.embeddings import JUNK, Embeddings
from reidkit.retrieval.metrics import (
    average_precision,
    cmc_curve,
    first_ranks,
    inverse_negative_penalty,
)
from reidkit.retrieval.protocols import (
    GalleryLabels,
    Protocol,
    find_matches,
    gallery_parts,
    get_protocol,
    join_labels,
)
from reidkit.retrieval.ranks import exclude
from reidkit.retrieval.report import Report, camera_pairs
from reidkit.retrieval.rerank import RerankConfig
from reidkit.retrieval.rows import Progress, make_rows


def evaluate(
    query: Embeddings,
    gallery: Embeddings,
    *,
    protocol: str = "market",
    metric: str = "cosine",
    rerank: RerankConfig | None = None,
    max_rank: int = 50,
    thresholds: bool = False,
    by_camera: bool = False,
    seed: int = 0,
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
        thresholds: also count all distances, for ROC, open-set rates and thresholds to deploy.
        by_camera: also score each camera's queries in what each camera took.
        seed: of the drawn galleries ("cuhk03-classic").
        max_memory: bytes to stay within above the features; None takes what is fast.
        device: where products run; the CPU if None.
        on_progress: called with the stage's name, what is done and what there is to do.
    Raises:
        DataError: vectors of different lengths, junk among the queries, or a gallery too small
            for `rerank`.
        ConfigError: an unknown protocol or metric, or a memory budget that is too small.
    """
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
    return _evaluate_rows(
        rows,
        parts,
        query.pids,
        query.camids,
        join_labels(gallery_parts(query, gallery, rule)),
        rule=rule,
        metric=metric,
        rerank=None if rerank is None else rerank.to_dict(),
        max_rank=max_rank,
        thresholds=thresholds,
        by_camera=by_camera,
        seed=seed,
        on_progress=on_progress,
    )


def evaluate_distances(
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
) -> Report:
    """The same from a distance matrix [Q, G] of any origin, float32 or float64.

    For "mars" the gallery is what is ranked already: query followed by gallery.

    Raises:
        DataError: the matrix is not [Q, G], or holds NaN or infinity.
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
            f"the distance matrix holds {len(bad)} NaN or infinite values, the first at "
            f"{bad[0].tolist()}"
        )
    if thresholds and matrix.min() < 0:
        raise DataError(f"thresholds need distances of 0 or more, the least is {matrix.min():g}")
    return _evaluate_rows(
        MatrixRows(matrix),
        blocks(len(pids), block_rows(len(gallery.pids))),
        pids,
        camids,
        gallery,
        rule=get_protocol(protocol),
        metric="given",
        rerank=None,
        max_rank=max_rank,
        thresholds=thresholds,
        by_camera=by_camera,
        seed=seed,
        on_progress=None,
    )


def _evaluate_rows(
    rows: Rows,
    parts: list[tuple[int, int]],
    pids: Any,
    camids: Any,
    gallery: GalleryLabels,
    *,
    rule: Protocol,
    metric: str,
    rerank: dict[str, float] | None,
    max_rank: int,
    thresholds: bool,
    by_camera: bool,
    seed: int,
    on_progress: Progress | None,
) -> Report:
    matches = find_matches(pids, camids, gallery, cameras=rule.cameras)
    ranked = RankCollector(matches)
    drawn = (
        SampledGalleryCollector(matches, gallery, draws=rule.draws, seed=seed)
        if rule.draws
        else None
    )
    paired = PairCollector(matches, rows) if thresholds else None
    by_pair = CameraCollector(matches, gallery) if by_camera else None
    optional: tuple[Collector | None, ...] = (drawn, paired, by_pair)
    collectors: list[Collector] = [ranked, *(c for c in optional if c is not None)]
    Q = len(pids)
    for start, stop in parts:
        block = rows.block(start, stop)
        exclude(block, matches, start)
        for collector in collectors:
            collector.take(block, start)
        if on_progress is not None:
            on_progress("ranking", stop, Q)

    ranks, offsets = ranked.ranks(), matches.offsets
    first = first_ranks(ranks, offsets)
    precision = average_precision(ranks, offsets)
    penalty = inverse_negative_penalty(ranks, offsets)
    hits, known = first[:, None], first > 0  # [Q, 1], or [Q, S] below
    if drawn is not None:
        hits = drawn.ranks
        if rule.sampled_precision:  # one true match in each drawn gallery: AP = INP = 1 / rank
            precision = np.full(Q, np.nan)
            precision[known] = (1 / hits[known]).mean(axis=1)
            penalty = precision.copy()
    junk = int(np.count_nonzero(gallery.roles == JUNK))
    return Report(
        protocol=rule.name,
        metric=metric,
        rerank=rerank,
        average_precision=precision,
        inverse_negative_penalty=penalty,
        rank_1=np.where(known, (hits == 1).mean(axis=1), np.nan),
        first_ranks=first,
        match_counts=np.diff(offsets),
        pids=pids,
        camids=camids,
        cmc=cmc_curve(hits.ravel(), max_rank),
        gallery_size=len(gallery.pids) - junk,
        junk=junk,
        pairs=None if paired is None else paired.statistics(),
        cameras=None
        if by_pair is None
        else camera_pairs(
            camids, by_pair.camids, by_pair.average_precision(), by_pair.first_ranks()
        ),
    )
