"""What an evaluation found."""

# Q queries, G gallery items, P camera pairs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.retrieval.metrics import mean_of_known
from reidkit.retrieval.pairs import PairStatistics
from reidkit.retrieval.significance import Interval, bootstrap


@dataclass(frozen=True)
class CameraPair:
    """Scores of one camera's queries in what another camera took.

    Attributes:
        query_camid, gallery_camid: the two cameras.
        mAP, rank_1: means over these queries.
        queries: queries of the one camera whose person the other took, too.
    """

    query_camid: int
    gallery_camid: int
    mAP: float
    rank_1: float
    queries: int


@dataclass(frozen=True)
class Report:
    """Scores of one ranking, as fractions of one.

    Attributes:
        protocol, metric: how it was ranked.
        rerank: k1, k2 and lambda of the re-ranking, or None.
        average_precision: float64 [Q], NaN where a query has no true match.
        inverse_negative_penalty: float64 [Q], likewise.
        rank_1: float64 [Q], likewise: whether the nearest item is right (with drawn galleries:
            in what share of them).
        first_ranks: int64 [Q], rank of the nearest true match in the whole gallery from 1, 0 where
            there is none.
        match_counts: int64 [Q], true matches.
        pids, camids: int64 [Q], of the queries.
        cmc: float64 [max_rank], cumulative matching characteristic.
        gallery_size: gallery items without junk.
        junk: gallery items left out of every ranking.
        pairs: thresholds and rates, if they were asked for.
        cameras: scores by camera pair, if they were asked for.
    """

    protocol: str
    metric: str
    rerank: dict[str, float] | None
    average_precision: NDArray[np.float64]
    inverse_negative_penalty: NDArray[np.float64]
    rank_1: NDArray[np.float64]
    first_ranks: NDArray[np.int64]
    match_counts: NDArray[np.int64]
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    cmc: NDArray[np.float64]
    gallery_size: int
    junk: int
    pairs: PairStatistics | None = None
    cameras: tuple[CameraPair, ...] | None = None

    @property
    def mAP(self) -> float:
        """Mean of AP over the queries that have a match."""
        return mean_of_known(self.average_precision)

    @property
    def mINP(self) -> float:
        """Mean of INP over the queries that have a match."""
        return mean_of_known(self.inverse_negative_penalty)

    @property
    def queries(self) -> int:
        """All queries, with and without a match."""
        return len(self.average_precision)

    @property
    def queries_without_match(self) -> int:
        """Queries that have no true match in what they see; no score counts them."""
        return int(np.count_nonzero(self.match_counts == 0))

    def rank(self, k: int) -> float:
        """CMC at rank k: the share of queries with a match among their k nearest."""
        if not 1 <= k <= len(self.cmc):
            raise DataError(f"CMC was computed for ranks 1 to {len(self.cmc)}, not for {k}")
        return float(self.cmc[k - 1])

    def intervals(
        self, *, samples: int = 2000, level: float = 0.95, seed: int = 0
    ) -> dict[str, Interval]:
        """Bootstrap intervals of mAP, mINP and rank-1 over identities.

        Raises DataError if no query has a match.
        """
        scores = {
            "mAP": self.average_precision,
            "mINP": self.inverse_negative_penalty,
            "rank-1": self.rank_1,
        }
        return {
            name: bootstrap(values, self.pids, samples=samples, level=level, seed=seed)
            for name, values in scores.items()
        }

    def to_dict(self, *, per_query: bool = False) -> dict[str, Any]:
        """For JSON: plain numbers, None where there is no number.

        Args:
            per_query: with each query's own results, which `significance.compare` needs.
        """
        found: dict[str, Any] = {
            "protocol": self.protocol,
            "metric": self.metric,
            "rerank": self.rerank,
            "mAP": _number(self.mAP),
            "mINP": _number(self.mINP),
            "cmc": _numbers(self.cmc),
            "queries": self.queries,
            "queries_without_match": self.queries_without_match,
            "identities": len(np.unique(self.pids)),
            "gallery": self.gallery_size,
            "junk": self.junk,
        }
        if self.pairs is not None:
            found["pairs"] = self.pairs.to_dict()
        if self.cameras is not None:
            found["cameras"] = [vars(pair) for pair in self.cameras]
        if per_query:
            found["per_query"] = {
                "pid": self.pids.tolist(),
                "camid": self.camids.tolist(),
                "matches": self.match_counts.tolist(),
                "first_rank": self.first_ranks.tolist(),
                "average_precision": _numbers(self.average_precision),
                "inverse_negative_penalty": _numbers(self.inverse_negative_penalty),
                "rank_1": _numbers(self.rank_1),
            }
        return found


def camera_pairs(
    query_camids: NDArray[np.int64],
    gallery_camids: NDArray[np.int64],
    average_precision: NDArray[np.float64],
    first_ranks: NDArray[np.int64],
) -> tuple[CameraPair, ...]:
    """Means over the queries of each camera pair that has any.

    Args:
        query_camids: int64 [Q].
        gallery_camids: int64 [C], distinct.
        average_precision, first_ranks: [C, Q], each query in each camera's part of the gallery.
    """
    found = []
    for query_camid in np.unique(query_camids).tolist():
        for c, gallery_camid in enumerate(gallery_camids.tolist()):
            some = (query_camids == query_camid) & (first_ranks[c] > 0)
            if some.any():
                found.append(
                    CameraPair(
                        query_camid=query_camid,
                        gallery_camid=gallery_camid,
                        mAP=float(average_precision[c, some].mean()),
                        rank_1=float(np.mean(first_ranks[c, some] == 1)),
                        queries=int(some.sum()),
                    )
                )
    return tuple(found)


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
