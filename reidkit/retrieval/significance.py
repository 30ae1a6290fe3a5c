"""Confidence intervals and paired tests over identities.

Results of the queries of one identity are correlated, so identities are resampled with all their
queries, never single queries.
"""

# Q queries, I identities, S resamples

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.errors import DataError

_RESAMPLED = 2**22  # resampled identities in memory at a time


@dataclass(frozen=True)
class Interval:
    """A mean over queries with the percentile interval of its bootstrap."""

    mean: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class PairedTest:
    """Whether two models differ on the same queries.

    Attributes:
        first, second: the two means.
        difference: second - first, with the bootstrap interval `low`..`high`.
        p_value: of the two-sided randomisation test: share of random swaps of each identity's two
            results that give at least as large a difference.
        queries, identities: their number, queries without a match not counted.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    level: float
    p_value: float
    queries: int
    identities: int


def bootstrap(
    values: ArrayLike,
    pids: ArrayLike,
    *,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of `values` [Q] by resampling identities; NaN are ignored.

    Raises:
        DataError: all values are NaN.
    """
    sums, counts = _per_identity(np.asarray(values, dtype=np.float64), np.asarray(pids))
    low, high = np.quantile(
        _resampled_means(sums, counts, samples=samples, seed=seed),
        [(1 - level) / 2, (1 + level) / 2],
    )
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high), level)


def paired_test(
    first: ArrayLike,
    second: ArrayLike,
    pids: ArrayLike,
    *,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedTest:
    """Tests second - first on per-query values [Q] of the same queries in the same order.

    Raises:
        DataError: a query has a value in one list only, so the galleries differ.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise DataError(
            f"the two lists have {len(a)} and {len(b)} queries: evaluate both models "
            "on the same data set"
        )
    unmatched = np.flatnonzero(np.isnan(a) != np.isnan(b))
    if len(unmatched):
        raise DataError(
            f"{len(unmatched)} queries have a match in only one of the two galleries, the first at "
            f"index {unmatched[0]}: evaluate both models on the same data set"
        )
    sums, counts = _per_identity(b - a, np.asarray(pids))
    queries, observed = counts.sum(), abs(sums.sum())
    rng = np.random.default_rng(seed)
    at_least_as_large = 0
    chunk = max(1, _RESAMPLED // len(sums))
    for start in range(0, samples, chunk):
        signs = rng.integers(0, 2, (min(chunk, samples - start), len(sums))) * 2 - 1
        # with tolerance for rounding: the observed arrangement itself must count
        at_least_as_large += int(np.count_nonzero(np.abs(signs @ sums) >= observed * (1 - 1e-12)))
    low, high = np.quantile(
        _resampled_means(sums, counts, samples=samples, seed=seed),
        [(1 - level) / 2, (1 + level) / 2],
    )
    return PairedTest(
        first=float(np.nanmean(a)),
        second=float(np.nanmean(b)),
        difference=float(sums.sum() / queries),
        low=float(low),
        high=float(high),
        level=level,
        p_value=(1 + at_least_as_large) / (1 + samples),
        queries=int(queries),
        identities=len(sums),
    )


def compare(
    first: Mapping[str, Any], second: Mapping[str, Any], *, samples: int = 10_000, seed: int = 0
) -> dict[str, PairedTest]:
    """Paired tests of mAP, mINP and rank-1 between two `RetrievalMetrics.to_dict(per_query=True)`.

    Raises:
        DataError: a document lacks per-query values, or the queries or the rules of AP differ.
    """
    lists = []
    for document in (first, second):
        if "per_query" not in document or "ap" not in document:
            raise DataError(
                "one of the two results has no per-query scores or no rule of AP. "
                "Run reidkit eval again"
            )
        lists.append(document["per_query"])
    if first["ap"] != second["ap"]:
        raise DataError(
            f"the two runs were evaluated with different rules of AP ({first['ap']} and "
            f"{second['ap']}). Evaluate both with the same one: reidkit eval MODEL --ap step"
        )
    for key in ("pid", "camid"):
        if lists[0][key] != lists[1][key]:
            raise DataError(
                f"the two runs were evaluated on different queries ({len(lists[0][key])} and "
                f"{len(lists[1][key])}, their {key}s differ): evaluate both on the same data set"
            )
    names = {"mAP": "average_precision", "mINP": "inverse_negative_penalty", "rank-1": "rank_1"}
    return {
        name: paired_test(
            _with_nan(lists[0][key]),
            _with_nan(lists[1][key]),
            lists[0]["pid"],
            samples=samples,
            seed=seed,
        )
        for name, key in names.items()
    }


def _with_nan(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _per_identity(
    values: NDArray[np.float64], pids: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and count of each identity's values: [I], [I]."""
    known = ~np.isnan(values)
    if not known.any():
        raise DataError("no query has a match, so there are no scores")
    _, identity = np.unique(pids[known], return_inverse=True)
    counts = np.bincount(identity).astype(np.float64)
    sums = np.bincount(identity, weights=values[known]).astype(np.float64, copy=False)
    return sums, counts


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], *, samples: int, seed: int
) -> NDArray[np.float64]:
    """Mean over the queries of I identities sampled with replacement: float64 [S]."""
    rng = np.random.default_rng(seed)
    I = len(sums)  # noqa: E741 - a letter of the legend
    means = np.empty(samples)
    chunk = max(1, _RESAMPLED // I)
    for start in range(0, samples, chunk):
        stop = min(start + chunk, samples)
        sampled = rng.integers(0, I, (stop - start, I))
        means[start:stop] = sums[sampled].sum(axis=1) / counts[sampled].sum(axis=1)
    return means
