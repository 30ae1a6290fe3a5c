"""Ranked lists of queries: in an index, or in a gallery of features in memory.

Imports torch only for `search_features`, so that a search with an ONNX file starts fast.
"""

# Q queries, G gallery items, n list length

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.features import JUNK, Features
from reidkit.files import atomic
from reidkit.index.exact import search_exact
from reidkit.index.filling import header_of
from reidkit.index.records import ANY, Filter, Gallery, Hit, Record
from reidkit.vectors import checked_norms, unit_rows

if TYPE_CHECKING:
    from reidkit.retrieval.rerank import RerankConfig


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


def search_images(query: Features, gallery: Features, n: int) -> list[list[Hit]]:
    """The nearest embedded images of a gallery for every query, by exact search as in an index.

    Identities and roles play no part: images without labels have none.

    Raises:
        DataError: the two were embedded by different models, or there are NaN, infinite or zero
            vectors.
    """
    header_of(gallery).check_same_model(header_of(query), where="the gallery")
    checked_norms(query.features, "queries")
    checked_norms(gallery.features, "gallery")
    unit = unit_rows(gallery.features)
    rows, cosines = search_exact(
        unit_rows(query.features),
        lambda start, stop: unit[start:stop],
        len(unit),
        min(n, len(unit)),
    )
    distances = np.maximum(1 - cosines, 0)  # rounding can make them negative
    return _hits(gallery, rows, distances)


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
    from reidkit.retrieval.embeddings import Embeddings
    from reidkit.retrieval.ranking import RankingConfig
    from reidkit.retrieval.search import top_n

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
    return _hits(gallery, lists.indices, lists.distances)


def _hits(
    gallery: Features, rows: NDArray[np.int64], distances: NDArray[np.floating[Any]]
) -> list[list[Hit]]:
    """Hits of rows [Q, n] of a gallery, -1 for none, and their distances [Q, n]."""
    return [
        [Hit(record_of(gallery, int(k)), float(d)) for k, d in zip(*row, strict=True) if k >= 0]
        for row in zip(rows, distances, strict=True)
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
