"""Same person or not: verification, open-set identification and the threshold to deploy.

All distances between queries and what they see are counted in fine bins while they pass by, so
that thresholds over a billion pairs need two megabytes. A threshold is the upper edge of a bin:
the rates given for it are exact, only the choice of thresholds is as coarse as a bin (2 / 2^18 =
8e-6 of cosine distance).
"""

# Q queries

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError

BINS = 2**18
FPRS = (1e-4, 1e-3, 1e-2, 1e-1)
"""False positive rates that reports name."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold (same person if distance < threshold) and what comes of it.

    Attributes:
        target: false positive rate asked for.
        threshold: distance.
        fpr: share of pairs of different persons below it, never more than `target`.
        tpr: share of pairs of the same person below it.
    """

    target: float
    threshold: float
    fpr: float
    tpr: float


@dataclass(frozen=True)
class IdentificationPoint:
    """Open-set identification at one threshold.

    Attributes:
        target: false alarm rate asked for.
        threshold: distance.
        far: share of unknown probes whose nearest gallery item is below it.
        dir: share of known probes whose nearest gallery item is right and below it.
    """

    target: float
    threshold: float
    far: float
    dir: float


@dataclass(frozen=True)
class PairStatistics:
    """Counts of distances between queries and what they see.

    Attributes:
        limit: upper end of the bins; every distance is smaller.
        same, other: int64 [BINS], pairs of one person and of two.
        nearest_same, nearest_other: float64 [Q], distance of the nearest match and of the nearest
            item that is none; infinite where there is none.
    """

    limit: float
    same: NDArray[np.int64]
    other: NDArray[np.int64]
    nearest_same: NDArray[np.float64]
    nearest_other: NDArray[np.float64]

    def operating_point(self, fpr: float) -> OperatingPoint:
        """The largest threshold whose false positive rate is at most `fpr`.

        Raises:
            ConfigError: `fpr` is not between 0 and 1.
            DataError: there are no pairs to count.
        """
        if not 0 < fpr < 1:
            raise ConfigError(f"a false positive rate lies between 0 and 1, got {fpr}")
        total_same, total_other = int(self.same.sum()), int(self.other.sum())
        if not total_same or not total_other:
            raise DataError(
                f"a threshold needs pairs of one person and of two persons, found {total_same} "
                f"and {total_other}"
            )
        below = np.cumsum(self.other)
        # `edge` bins lie wholly below the threshold
        edge = int(np.searchsorted(below, fpr * total_other, side="right"))
        return OperatingPoint(
            target=fpr,
            threshold=edge * self.limit / BINS,
            fpr=float(below[edge - 1] / total_other) if edge else 0.0,
            tpr=float(self.same[:edge].sum() / total_same),
        )

    def identification_point(self, far: float) -> IdentificationPoint:
        """Detection and identification rate at a false alarm rate.

        Each query is a known probe against the gallery, and, its own identity taken out of the
        gallery, an unknown one; a query without a match is only unknown.
        """
        if not 0 < far < 1:
            raise ConfigError(f"a false alarm rate lies between 0 and 1, got {far}")
        known = np.isfinite(self.nearest_same)
        if not known.any():
            raise DataError("open-set identification needs queries with a match, found none")
        alarms = np.sort(self.nearest_other)
        allowed = int(far * len(alarms))  # so many may lie strictly below the threshold
        threshold = min(float(alarms[allowed]), self.limit)
        right = known & (self.nearest_same < self.nearest_other)
        return IdentificationPoint(
            target=far,
            threshold=threshold,
            far=float(np.mean(alarms < threshold)),
            dir=float(np.sum(right & (self.nearest_same < threshold)) / known.sum()),
        )

    def roc(self, points: int = 200) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(FPR, TPR) for a plot, false positive rates evenly spaced in their logarithm."""
        below_other = np.cumsum(self.other) / max(1, self.other.sum())
        below_same = np.cumsum(self.same) / max(1, self.same.sum())
        lowest = 1 / max(2, int(self.other.sum()))
        at = np.searchsorted(below_other, np.geomspace(max(lowest, 1e-6), 1, points))
        at = np.unique(np.minimum(at, BINS - 1))
        return below_other[at], below_same[at]

    def histogram(
        self, bins: int = 128
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """(edges [bins + 1], pairs of one person [bins], of two [bins]) over the range in use."""
        used = np.flatnonzero(self.same + self.other)
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, BINS)
        edges = np.unique(np.linspace(low, high, bins + 1).astype(np.int64))
        same, other = (
            np.add.reduceat(part[:high], edges[:-1]).astype(np.int64, copy=False)
            for part in (self.same, self.other)
        )
        return edges * np.float64(self.limit / BINS), same, other

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the named operating points and how many pairs stand behind them."""
        found: dict[str, Any] = {
            "pairs_same": int(self.same.sum()),
            "pairs_other": int(self.other.sum()),
        }
        if found["pairs_same"] and found["pairs_other"]:
            points = [self.operating_point(fpr) for fpr in FPRS]
            found["tpr_at_fpr"] = [vars(point) for point in points]
            rates = [self.identification_point(far) for far in (1e-2, 1e-1)]
            found["dir_at_far"] = [vars(point) for point in rates]
        return found
