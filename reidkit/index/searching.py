"""Ranked lists of queries: in an index, or in a gallery of features in memory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reidkit.errors import DataError
from reidkit.features import Features
from reidkit.files import atomic
from reidkit.index.filling import header_of
from reidkit.index.records import ANY, Filter, Gallery, Hit, Record
from reidkit.retrieval.embeddings import JUNK, Embeddings
from reidkit.retrieval.ranking import RankingConfig
from reidkit.retrieval.rerank import RerankConfig
from reidkit.retrieval.search import top_n


@dataclass(frozen=True)
class RankedQuery:
    """A query and its hits, nearest first."""

    path: str
    person: str
    hits: tuple[Hit, ...]


def search_index(
    query: Features, gallery: Gallery, n: int, condition: Filter = ANY
) -> list[list[Hit]]:
    """The nearest records of every query.

    Raises:
        DataError: the queries were embedded by another model or in another way.
    """
    gallery.header.check_same_model(header_of(query), where=gallery.name)
    return gallery.search(query.features, n, condition)


def search_features(
    query: Features,
    gallery: Features,
    n: int,
    *,
    rerank: RerankConfig | None = None,
    condition: Filter = ANY,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[list[Hit]]:
    """The nearest rows of a features file for every query; junk is not found.

    Raises:
        DataError: the two were embedded by different models; else as `top_n`.
    """
    header = header_of(gallery)
    header.check_same_model(header_of(query), where="the gallery")
    keep = gallery.roles != JUNK
    if condition.cameras is not None:
        keep &= np.isin(gallery.camids, sorted(condition.cameras))
    if condition.people is not None:
        pids = np.unique(gallery.pids[gallery.pids >= 0]).tolist()
        keep &= np.isin(gallery.pids, [pid for pid in pids if str(pid) in condition.people])
    if not keep.any():
        raise DataError("the gallery has no vector that meets the conditions")
    roles = np.where(keep, 0, JUNK).astype(np.uint8)
    lists = top_n(
        Embeddings(query.features, query.pids, query.camids, name="queries"),
        Embeddings(gallery.features, gallery.pids, gallery.camids, roles, name="gallery"),
        n,
        RankingConfig("none", rerank=rerank),
        on_progress=on_progress,
    )
    return [
        [Hit(record_of(gallery, int(k)), float(d)) for k, d in zip(*row, strict=True) if k >= 0]
        for row in zip(lists.indices, lists.distances, strict=True)
    ]


def ranked_queries(
    query: Features,
    lists: Sequence[Sequence[Hit]],
    *,
    top: int,
    threshold: float | None = None,
    exclude_self: bool = False,
) -> list[RankedQuery]:
    """Queries with at most `top` hits.

    Args:
        threshold: largest distance of a hit.
        exclude_self: leave out hits that have the query's own path.
    """
    found = []
    for row, hits in enumerate(lists):
        record = record_of(query, row)
        kept = [
            hit
            for hit in hits
            if (threshold is None or hit.distance <= threshold)
            and not (exclude_self and _same_file(hit.record.path, record.path))
        ]
        found.append(RankedQuery(record.path, record.person, tuple(kept[:top])))
    return found


def record_of(features: Features, row: int) -> Record:
    """Path, person and camera of a row of features."""
    pid, camid = int(features.pids[row]), int(features.camids[row])
    person = str(pid) if pid >= 0 else ""
    return Record(features.paths[row], person, camid if camid >= 0 else None)


def _same_file(a: str, b: str) -> bool:
    return a == b or (bool(a and b) and Path(a).resolve() == Path(b).resolve())


def write_csv(file: Path, ranked: Sequence[RankedQuery]) -> None:
    """Writes ranked lists as CSV, one line per hit."""
    with atomic(file) as partial, partial.open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines)
        table.writerow(["query", "rank", "distance", "path", "person", "camera", "time"])
        for item in ranked:
            for rank, hit in enumerate(item.hits, start=1):
                record = hit.record
                values = [record.path, record.person, record.camera, record.time]
                table.writerow([item.path, rank, f"{hit.distance:.6f}", *values])
