"""What an evaluation found."""

# Q queries, G gallery items

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.retrieval.metrics import cmc_curve, mean_of_known


@dataclass(frozen=True)
class Report:
    """Scores of one ranking, as fractions of one.

    Attributes:
        protocol, metric: how it was ranked.
        rerank: k1, k2 and lambda of the re-ranking, or None.
        average_precision: float64 [Q], NaN where a query has no true match.
        inverse_negative_penalty: float64 [Q], likewise.
        first_ranks: int64 [Q], rank of the nearest true match from 1, 0 where there is none. With
            drawn galleries: in the whole gallery.
        match_counts: int64 [Q], true matches.
        pids, camids: int64 [Q], of the queries.
        cmc: float64 [max_rank].
        gallery_size: gallery items without junk.
        junk: gallery items left out of every ranking.
    """

    protocol: str
    metric: str
    rerank: dict[str, float] | None
    average_precision: NDArray[np.float64]
    inverse_negative_penalty: NDArray[np.float64]
    first_ranks: NDArray[np.int64]
    match_counts: NDArray[np.int64]
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    cmc: NDArray[np.float64]
    gallery_size: int
    junk: int

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

    def to_dict(self, *, per_query: bool = False) -> dict[str, Any]:
        """For JSON: plain numbers, None where there is no number."""
        found: dict[str, Any] = {
            "protocol": self.protocol,
            "metric": self.metric,
            "rerank": self.rerank,
            "mAP": _number(self.mAP),
            "mINP": _number(self.mINP),
            "cmc": [_number(value) for value in self.cmc],
            "queries": self.queries,
            "queries_without_match": self.queries_without_match,
            "identities": len(np.unique(self.pids)),
            "gallery": self.gallery_size,
            "junk": self.junk,
        }
        if per_query:
            found["per_query"] = {
                "average_precision": [_number(value) for value in self.average_precision],
                "inverse_negative_penalty": [
                    _number(value) for value in self.inverse_negative_penalty
                ],
                "first_rank": self.first_ranks.tolist(),
                "matches": self.match_counts.tolist(),
                "pid": self.pids.tolist(),
                "camid": self.camids.tolist(),
            }
        return found


def make_report(
    *,
    average_precision: NDArray[np.float64],
    inverse_negative_penalty: NDArray[np.float64],
    first_ranks: NDArray[np.int64],
    max_rank: int,
    **known: Any,
) -> Report:
    """A report whose CMC comes from the first ranks."""
    return Report(
        average_precision=average_precision,
        inverse_negative_penalty=inverse_negative_penalty,
        first_ranks=first_ranks,
        cmc=cmc_curve(first_ranks, max_rank),
        **known,
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
