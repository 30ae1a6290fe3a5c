"""Verification and open-set identification: rates and thresholds from all distances.

All distances between queries and their gallery items are counted in fine bins, block by block, so
that thresholds over a billion pairs need two megabytes. A threshold is the upper edge of a bin:
its rates are exact, only the choice of thresholds is as coarse as a bin (2 / 2^18 = 8e-6 of cosine
distance).
"""

# Q queries, G gallery items, B rows of one block

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from reidkit.errors import ConfigError, DataError
from reidkit.retrieval.blocks import chunks, parallel_for
from reidkit.retrieval.distance import Distances
from reidkit.retrieval.protocols import Matches

BINS = 2**18
FPRS = (1e-4, 1e-3, 1e-2, 1e-1)
"""False positive rates at which reports give the true positive rate."""
FARS = (1e-2, 1e-1)
"""False alarm rates at which reports give the detection and identification rate."""

_BINNED = 2**20  # distances put into bins at a time


@dataclass(frozen=True)
class OperatingPoint:
    """A verification threshold (same identity if distance < threshold) and its rates.

    Attributes:
        target: requested false positive rate.
        threshold: distance.
        fpr: share of pairs of different identities below it, at most `target`.
        tpr: share of pairs of the same identity below it.
    """

    target: float
    threshold: float
    fpr: float
    tpr: float


@dataclass(frozen=True)
class IdentificationPoint:
    """Open-set identification at one threshold.

    Attributes:
        target: requested false alarm rate.
        threshold: distance.
        far: share of unknown probes whose nearest gallery item is below it.
        dir: share of known probes whose nearest gallery item is a match and below it.
    """

    target: float
    threshold: float
    far: float
    dir: float


@dataclass(frozen=True)
class PairStatistics:
    """Counts of distances between queries and the gallery items they are ranked against.

    Attributes:
        limit: upper end of the bins; every distance is smaller.
        same, other: int64 [BINS], pairs of the same identity and of different ones.
        nearest_same, nearest_other: float64 [Q], distance of the nearest match and of the nearest
            other item; infinite where there is none.
    """

    limit: float
    same: NDArray[np.int64]
    other: NDArray[np.int64]
    nearest_same: NDArray[np.float64]
    nearest_other: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"PairStatistics({self.same.sum()} pairs of one identity, {self.other.sum()} of two)"

    def operating_point(self, fpr: float) -> OperatingPoint:
        """The largest threshold whose false positive rate is at most `fpr`.

        Raises:
            ConfigError: `fpr` is not between 0 and 1.
            DataError: there are no pairs of the same or of different identities.
        """
        if not 0 < fpr < 1:
            raise ConfigError(f"a false positive rate must be between 0 and 1, got {fpr}")
        total_same, total_other = int(self.same.sum()), int(self.other.sum())
        if not total_same or not total_other:
            raise DataError(
                "a threshold needs pairs of the same identity and of different ones, found "
                f"{total_same} and {total_other}"
            )
        below = np.cumsum(self.other)
        # number of bins that are entirely below the threshold
        edge = int(np.searchsorted(below, fpr * total_other, side="right"))
        return OperatingPoint(
            target=fpr,
            threshold=edge * self.limit / BINS,
            fpr=float(below[edge - 1] / total_other) if edge else 0.0,
            tpr=float(self.same[:edge].sum() / total_same),
        )

    def identification_point(self, far: float) -> IdentificationPoint:
        """Detection and identification rate at a false alarm rate.

        Each query is a known probe against the gallery, and an unknown one against the gallery
        without its identity; a query without a match is only unknown.

        Raises:
            ConfigError: `far` is not between 0 and 1.
            DataError: no query has a match.
        """
        if not 0 < far < 1:
            raise ConfigError(f"a false alarm rate must be between 0 and 1, got {far}")
        known = np.isfinite(self.nearest_same)
        if not known.any():
            raise DataError("open-set identification needs queries with a match, found none")
        alarms = np.sort(self.nearest_other)
        allowed = int(far * len(alarms))  # alarms that may be strictly below it
        threshold = min(float(alarms[allowed]), self.limit)
        correct = known & (self.nearest_same < self.nearest_other)
        return IdentificationPoint(
            target=far,
            threshold=threshold,
            far=float(np.mean(alarms < threshold)),
            dir=float(np.sum(correct & (self.nearest_same < threshold)) / known.sum()),
        )

    def roc(self, points: int = 200) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(FPR, TPR) of a ROC curve, false positive rates evenly spaced on a logarithmic axis."""
        below_other = np.cumsum(self.other) / max(1, self.other.sum())
        below_same = np.cumsum(self.same) / max(1, self.same.sum())
        lowest = 1 / max(2, int(self.other.sum()))
        at = np.searchsorted(below_other, np.geomspace(max(lowest, 1e-6), 1, points))
        at = np.unique(np.minimum(at, BINS - 1))
        return below_other[at], below_same[at]

    def histogram(
        self, bins: int = 128
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """(edges [bins + 1], same-identity [bins], other pairs [bins]) of the used range."""
        used = np.flatnonzero(self.same + self.other)
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, BINS)
        edges = np.unique(np.linspace(low, high, bins + 1).astype(np.int64))
        same, other = (
            np.add.reduceat(part[:high], edges[:-1]).astype(np.int64, copy=False)
            for part in (self.same, self.other)
        )
        return edges * np.float64(self.limit / BINS), same, other

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers of pairs, and the rates at `FPRS` and `FARS`."""
        document: dict[str, Any] = {
            "pairs_same": int(self.same.sum()),
            "pairs_other": int(self.other.sum()),
        }
        if document["pairs_same"] and document["pairs_other"]:
            document["tpr_at_fpr"] = [vars(self.operating_point(fpr)) for fpr in FPRS]
            document["dir_at_far"] = [vars(self.identification_point(far)) for far in FARS]
        return document


class PairCounter:
    """Histograms of all distances, and each query's nearest match and nearest other item."""

    def __init__(self, matches: Matches, distances: Distances) -> None:
        self._matches = matches
        self._distances = distances
        self._scale = np.float32(BINS / distances.limit)
        self._all = np.zeros(BINS + 1, dtype=np.int64)  # the last bin counts excluded items
        self._same = np.zeros(BINS + 1, dtype=np.int64)
        Q = len(matches.offsets) - 1
        self._nearest_same = np.full(Q, np.inf)
        self._nearest_other = np.full(Q, np.inf)

    def add(self, block: Tensor, start: int) -> None:
        """Counts distances [B, G] of queries start.., excluded items at infinity."""
        values = block.cpu().numpy()
        counts: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

        def count(first: int, last: int) -> None:
            every = np.zeros(BINS + 1, dtype=np.int64)
            same = np.zeros(BINS + 1, dtype=np.int64)
            size = max(1, _BINNED // values.shape[1])
            for low, high in chunks(last - first, size):
                bins = np.empty((high - low, values.shape[1]), dtype=np.int64)
                for i, b in enumerate(range(first + low, first + high)):
                    row = np.array(self._distances.to_distance(values[b]))  # a copy
                    bins[i] = np.minimum(row * self._scale, BINS)
                    columns = self._matches.of(start + b)
                    if len(columns):
                        np.add.at(same, bins[i, columns], 1)
                        self._nearest_same[start + b] = row[columns].min()
                        row[columns] = np.inf
                    self._nearest_other[start + b] = row.min()
                every += np.bincount(bins.ravel(), minlength=BINS + 1)
            counts[first] = every, same

        parallel_for(count, len(values))
        for every, same in counts.values():
            self._all += every
            self._same += same

    def statistics(self) -> PairStatistics:
        return PairStatistics(
            limit=self._distances.limit,
            same=self._same[:BINS].copy(),
            other=(self._all - self._same)[:BINS],
            nearest_same=self._nearest_same,
            nearest_other=self._nearest_other,
        )
