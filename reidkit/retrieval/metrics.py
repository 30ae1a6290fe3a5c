"""Metrics of a ranking: AP, INP and CMC from the ranks of the true matches alone."""

# Q queries, R true matches of one query, C gallery cameras

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from reidkit.choices import ApRule
from reidkit.errors import ConfigError, DataError, suggest
from reidkit.retrieval.significance import Interval, bootstrap
from reidkit.retrieval.thresholds import PairStatistics

AP_NAMES: dict[str, str] = {"step": "step-wise AP", "trapezoid": "trapezoidal AP"}
"""What reports call the rules of `average_precision`."""


def check_ap_rule(rule: str) -> None:
    """Raises ConfigError for an unknown rule of average precision."""
    if rule not in get_args(ApRule):
        raise ConfigError(f"unknown rule of AP {rule}. {suggest(rule, get_args(ApRule))}")


def average_precision(
    ranks: NDArray[np.int64], offsets: NDArray[np.int64], *, rule: ApRule = "step"
) -> NDArray[np.float64]:
    """AP of each query: the area under its precision-recall curve.

    step: AP = (1/R) * sum_i i / rank_i, the mean of precision at each true match (Zheng et al.
    2015, sec. 5.1; scikit-learn from 0.19 on).

    trapezoid: AP = (1/R) * sum_i (i / rank_i + (i - 1) / (rank_i - 1)) / 2, where the second
    fraction is 1 for rank_i = 1: the curve begins at recall 0, precision 1 (scikit-learn up to
    0.18). Ties are broken by gallery order, which scikit-learn joins to one point of the curve.

    Args:
        ranks: int64 [total], from 1; query q owns ranks[offsets[q]:offsets[q + 1]], ascending.
        offsets: int64 [Q + 1].
    Returns:
        float64 [Q] in (0, 1]; NaN where a query has no true match.
    """
    position = np.arange(1, len(ranks) + 1) - np.repeat(offsets[:-1], np.diff(offsets))
    precision = position / ranks
    if rule == "trapezoid":
        precision = (precision + _precision_before(position, ranks)) / 2
    counts = np.diff(offsets)
    values = np.full(len(counts), np.nan)
    matched = counts > 0
    if matched.any():
        values[matched] = np.add.reduceat(precision, offsets[:-1][matched]) / counts[matched]
    return values


def _precision_before(position: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Precision of the ranking just above each true match: 1 above the first rank."""
    return np.where(ranks == 1, 1.0, (position - 1) / np.maximum(ranks - 1, 1))


def single_match_precision(
    ranks: NDArray[np.int64], *, rule: ApRule = "step"
) -> NDArray[np.float64]:
    """AP of rankings with one true match each, at these ranks from 1; any shape."""
    precision: NDArray[np.float64] = 1 / ranks
    return precision if rule == "step" else (precision + (ranks == 1)) / 2


def inverse_negative_penalty(
    ranks: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """INP of each query: R / rank of its hardest match (Ye et al. 2021, sec. 3.3).

    Arguments and NaN as in `average_precision`.
    """
    counts = np.diff(offsets)
    values = np.full(len(counts), np.nan)
    matched = counts > 0
    values[matched] = counts[matched] / ranks[offsets[1:][matched] - 1]
    return values


def first_ranks(ranks: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each query's nearest true match, from 1; 0 where there is none."""
    matched = np.diff(offsets) > 0
    first = np.zeros(len(offsets) - 1, dtype=np.int64)
    first[matched] = ranks[offsets[:-1][matched]]
    return first


def cmc_curve(first: NDArray[np.int64], max_rank: int) -> NDArray[np.float64]:
    """Cumulative matching characteristic: share of queries with a match by rank 1..max_rank.

    Args:
        first: int64 [Q], rank of the nearest match; 0 where a query has none (it is not counted).
    Returns:
        float64 [max_rank] in [0, 1]; NaN if no query has a match.
    """
    first = first[first > 0]
    if not len(first):
        return np.full(max_rank, np.nan)
    hits = np.bincount(np.minimum(first, max_rank + 1), minlength=max_rank + 2)[1 : max_rank + 1]
    return np.cumsum(hits) / len(first)


@dataclass(frozen=True)
class CameraPair:
    """Scores of one camera's queries against the images of another camera.

    Attributes:
        query_camid, gallery_camid: the two cameras.
        mAP, rank_1: means over these queries.
        queries: number of the query camera's queries with a match in the gallery camera.
    """

    query_camid: int
    gallery_camid: int
    mAP: float
    rank_1: float
    queries: int


@dataclass(frozen=True)
class RetrievalMetrics:
    """Scores of one ranking, as fractions of one.

    Attributes:
        protocol, metric: how it was ranked.
        ap: rule of `average_precision`.
        rerank: k1, k2 and lambda of the re-ranking, or None.
        average_precision: float64 [Q], NaN where a query has no true match.
        inverse_negative_penalty: float64 [Q], likewise.
        rank_1: float64 [Q], likewise: 1 if the nearest item is a match, else 0 (with sampled
            galleries: the share of them in which it is).
        first_ranks: int64 [Q], rank of the nearest true match in the whole gallery from 1, 0 where
            there is none.
        match_counts: int64 [Q], number of true matches.
        pids, camids: int64 [Q], of the queries.
        cmc: float64 [max_rank], cumulative matching characteristic.
        gallery_size: gallery items without junk.
        junk: gallery items excluded from every ranking.
        pairs: distances of same and different identities, if requested.
        cameras: scores by camera pair, if requested.
    """

    protocol: str
    metric: str
    ap: ApRule
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

    def __repr__(self) -> str:
        return (
            f"RetrievalMetrics(mAP {100 * self.mAP:.1f}, rank-1 {100 * self.rank(1):.1f}, "
            f"{self.queries} queries, {self.gallery_size} gallery, {self.protocol})"
        )

    @property
    def mAP(self) -> float:
        """Mean AP over the queries with a match."""
        return _mean(self.average_precision)

    @property
    def mINP(self) -> float:
        """Mean INP over the queries with a match."""
        return _mean(self.inverse_negative_penalty)

    @property
    def queries(self) -> int:
        """Number of queries, with and without a match."""
        return len(self.average_precision)

    @property
    def queries_without_match(self) -> int:
        """Number of queries without a true match; they count in no score."""
        return int(np.count_nonzero(self.match_counts == 0))

    def rank(self, k: int) -> float:
        """CMC at rank k: the share of queries with a match among the k nearest items."""
        if not 1 <= k <= len(self.cmc):
            raise DataError(f"CMC was computed for ranks 1 to {len(self.cmc)}, not for {k}")
        return float(self.cmc[k - 1])

    def intervals(
        self, *, samples: int = 2000, level: float = 0.95, seed: int = 0
    ) -> dict[str, Interval]:
        """Bootstrap intervals of mAP, mINP and rank-1 over identities.

        Raises:
            DataError: no query has a match.
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
        """For JSON: plain numbers, None in place of NaN.

        Args:
            per_query: include the results of each query, which `significance.compare` needs.
        """
        document: dict[str, Any] = {
            "protocol": self.protocol,
            "metric": self.metric,
            "ap": self.ap,
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
            document["pairs"] = self.pairs.to_dict()
        if self.cameras is not None:
            document["cameras"] = [vars(pair) for pair in self.cameras]
        if per_query:
            document["per_query"] = {
                "pid": self.pids.tolist(),
                "camid": self.camids.tolist(),
                "matches": self.match_counts.tolist(),
                "first_rank": self.first_ranks.tolist(),
                "average_precision": _numbers(self.average_precision),
                "inverse_negative_penalty": _numbers(self.inverse_negative_penalty),
                "rank_1": _numbers(self.rank_1),
            }
        return document


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
