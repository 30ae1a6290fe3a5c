"""Scores of rankings, from the ranks of the true matches alone."""

# Q queries, R true matches of one query

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_precision(ranks: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP of each query: the mean of precision at each true match.

    AP = (1/R) * sum_i i / rank_i      Zheng et al. 2015, sec. 5.1, without interpolation

    Args:
        ranks: int64 [total], from 1; query q owns ranks[offsets[q]:offsets[q + 1]], ascending.
        offsets: int64 [Q + 1].
    Returns:
        float64 [Q] in (0, 1]; NaN where a query has no true match.
    """
    position = np.arange(1, len(ranks) + 1) - np.repeat(offsets[:-1], np.diff(offsets))
    return ragged_mean(position / ranks, offsets)


def inverse_negative_penalty(
    ranks: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """INP of each query: R / rank of its hardest match (Ye et al. 2021, sec. 3.3).

    Arguments and NaN as in `average_precision`.
    """
    counts = np.diff(offsets)
    values = np.full(len(counts), np.nan)
    some = counts > 0
    values[some] = counts[some] / ranks[offsets[1:][some] - 1]
    return values


def first_ranks(ranks: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each query's nearest true match, from 1; 0 where there is none."""
    some = np.diff(offsets) > 0
    first = np.zeros(len(offsets) - 1, dtype=np.int64)
    first[some] = ranks[offsets[:-1][some]]
    return first


def cmc_curve(first: NDArray[np.int64], max_rank: int) -> NDArray[np.float64]:
    """Cumulative matching characteristic: how many queries have a match by rank 1..max_rank.

    Args:
        first: int64 [Q], rank of the nearest match, 0 where a query has none (it does not count).
    Returns:
        float64 [max_rank] in [0, 1]; NaN if no query has a match.
    """
    first = first[first > 0]
    if not len(first):
        return np.full(max_rank, np.nan)
    hits = np.bincount(np.minimum(first, max_rank + 1), minlength=max_rank + 2)[1 : max_rank + 1]
    return np.cumsum(hits) / len(first)


def sort_ragged(values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
    """Each query's own values in ascending order."""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return values[np.lexsort((values, owner))]


def ragged_mean(values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of each query's own values: float64 [Q], NaN where it has none."""
    counts = np.diff(offsets)
    means = np.full(len(counts), np.nan)
    some = counts > 0
    if some.any():
        means[some] = np.add.reduceat(values, offsets[:-1][some]) / counts[some]
    return means


def mean_of_known(values: NDArray[np.float64]) -> float:
    """Mean of what is not NaN; NaN if nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
