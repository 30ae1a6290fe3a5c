"""Each query's result with paths: where a model fails, and what it takes for the right person."""

# Q queries

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from reidkit.features import Features
from reidkit.files import atomic
from reidkit.retrieval import Embeddings, RankingConfig, RetrievalMetrics, get_protocol
from reidkit.retrieval.search import nearest_matches


@dataclass(frozen=True)
class QueryResult:
    """One query.

    Attributes:
        query: its path.
        ap: average precision, NaN without a true match in the gallery.
        first_rank: of the nearest true match, from 1; 0 without one.
        match, match_distance: path of the nearest true match.
        wrong, wrong_distance: path and identity of the nearest image of another person; in front
            of the match if `first_rank` is above 1.
    """

    query: str
    pid: int
    camid: int
    ap: float
    first_rank: int
    match: str
    match_distance: float
    wrong: str
    wrong_pid: int
    wrong_distance: float


def query_results(
    query: tuple[Features, Embeddings],
    gallery: tuple[Features, Embeddings],
    config: RankingConfig,
    metrics: RetrievalMetrics,
) -> tuple[QueryResult, ...]:
    """Results of all queries in order.

    Args:
        query, gallery: features with their paths, and the vectors that were ranked.
        metrics: of the same ranking.
    """
    nearest = nearest_matches(query[1], gallery[1], config)
    paths, pids = gallery[0].paths, gallery[1].pids.tolist()
    if get_protocol(config.protocol).queries_in_gallery:
        paths, pids = query[0].paths + paths, query[1].pids.tolist() + pids
    return tuple(
        QueryResult(
            query=query[0].paths[q],
            pid=int(metrics.pids[q]),
            camid=int(metrics.camids[q]),
            ap=float(metrics.average_precision[q]),
            first_rank=int(metrics.first_ranks[q]),
            match=paths[right] if right >= 0 else "",
            match_distance=float(nearest.right_distance[q]),
            wrong=paths[wrong] if wrong >= 0 else "",
            wrong_pid=pids[wrong] if wrong >= 0 else -1,
            wrong_distance=float(nearest.wrong_distance[q]),
        )
        for q, (right, wrong) in enumerate(
            zip(nearest.right.tolist(), nearest.wrong.tolist(), strict=True)
        )
    )


def worst_first(results: Sequence[QueryResult]) -> list[QueryResult]:
    """Queries with a true match by AP, the lowest first."""
    return sorted((r for r in results if not math.isnan(r.ap)), key=lambda r: (r.ap, r.query))


def write_failures(file: Path, results: Sequence[QueryResult]) -> None:
    """Writes `worst_first` as CSV, one line per query; AP in percent."""
    with atomic(file) as partial, partial.open("w", newline="", encoding="utf-8") as lines:
        table = csv.DictWriter(lines, [field.name for field in fields(QueryResult)])
        table.writeheader()
        for result in worst_first(results):
            row = asdict(result)
            row["ap"] = f"{100 * result.ap:.2f}"
            for name in ("match_distance", "wrong_distance"):
                row[name] = f"{row[name]:.6f}"
            table.writerow(row)
