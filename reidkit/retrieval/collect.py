"""What is read off each block of distances while it passes by."""

# Q queries, G gallery items, B rows of one block, S drawn galleries, C gallery cameras

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.retrieval.distance import Rows, blocks, spread
from reidkit.retrieval.metrics import average_precision, first_ranks, sort_ragged
from reidkit.retrieval.pairs import BINS, PairStatistics
from reidkit.retrieval.protocols import GalleryLabels, Matches, offsets_of
from reidkit.retrieval.ranks import match_ranks

_COUNTED = 2**20  # distances put into bins at a time


class Collector(Protocol):
    """Sees every block once, in order; excluded items stand at infinity."""

    def take(self, block: Tensor, start: int) -> None:
        """Reads distances [B, G] of queries start..; must not change them."""
        ...


class RankCollector:
    """Ranks of all true matches, ascending within each query."""

    def __init__(self, matches: Matches) -> None:
        self._matches = matches
        self._ranks = np.empty(len(matches.columns), dtype=np.int64)

    def take(self, block: Tensor, start: int) -> None:
        offsets = self._matches.offsets
        low, high = offsets[start], offsets[start + len(block)]
        self._ranks[low:high] = match_ranks(block, self._matches, start)

    def ranks(self) -> NDArray[np.int64]:
        """int64 [total], laid out as `Matches.columns`."""
        return sort_ragged(self._ranks, self._matches.offsets)


class SampledGalleryCollector:
    """Rank of the one true match in random galleries of one image per identity.

    Every query draws among what it sees, from a generator of its own, so that neither blocks nor
    other queries change its draws. A distractor is an identity of its own kind.
    """

    def __init__(self, matches: Matches, gallery: GalleryLabels, *, draws: int, seed: int) -> None:
        self._matches = matches
        self._seed = seed
        both = np.stack([gallery.pids, gallery.roles.astype(np.int64)], axis=1)
        self._groups = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
        self._by_group = np.argsort(self._groups, kind="stable")
        self.ranks = np.zeros((len(matches.offsets) - 1, draws), dtype=np.int64)
        """int64 [Q, S], from 1; zeros where a query has no match."""

    def take(self, block: Tensor, start: int) -> None:
        values = block.cpu().numpy()

        def draw(first: int, last: int) -> None:
            for b in range(first, last):
                columns = self._matches.of(start + b)
                if len(columns):
                    self.ranks[start + b] = self._drawn(values[b], columns[0], start + b)

        spread(draw, len(values))

    def _drawn(self, row: NDArray[np.float32], match: int, q: int) -> NDArray[np.int64]:
        seen = self._by_group[np.isfinite(row[self._by_group])]  # identity by identity
        groups = self._groups[seen]
        first = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
        sizes = np.diff(np.r_[first, len(seen)])
        own = int(np.searchsorted(groups[first], self._groups[match]))
        draws = np.random.default_rng([self._seed, q]).random((self.ranks.shape[1], len(first)))
        chosen = seen[first + (draws * sizes).astype(np.int64)]  # [S, identities]
        values, target = row[chosen], chosen[:, own : own + 1]
        nearer = (values < row[target]) | ((values == row[target]) & (chosen < target))
        ranks: NDArray[np.int64] = 1 + nearer.sum(axis=1)
        return ranks


class CameraCollector:
    """AP and first rank of each query in the part of the gallery that one camera took."""

    def __init__(self, matches: Matches, gallery: GalleryLabels) -> None:
        self.camids: NDArray[np.int64] = np.unique(gallery.camids)
        Q = len(matches.offsets) - 1
        owner = np.repeat(np.arange(Q), np.diff(matches.offsets))
        nothing = np.zeros(0, dtype=np.int64)
        self._columns: list[NDArray[np.int64]] = []
        self._matches: list[Matches] = []
        for camid in self.camids:
            columns = np.flatnonzero(gallery.camids == camid)
            inside = gallery.camids[matches.columns] == camid
            self._columns.append(columns)
            self._matches.append(
                Matches(
                    columns=np.searchsorted(columns, matches.columns[inside]),
                    offsets=offsets_of(owner[inside], Q),
                    excluded=nothing,
                    excluded_offsets=np.zeros(Q + 1, dtype=np.int64),
                    junk=nothing,
                )
            )
        self._ranks = [np.empty(len(part.columns), dtype=np.int64) for part in self._matches]

    def take(self, block: Tensor, start: int) -> None:
        for columns, part, ranks in zip(self._columns, self._matches, self._ranks, strict=True):
            low, high = part.offsets[start], part.offsets[start + len(block)]
            if low < high:
                seen = block[:, torch.from_numpy(columns).to(block.device)]
                ranks[low:high] = match_ranks(seen, part, start)

    def average_precision(self) -> NDArray[np.float64]:
        """float64 [C, Q], NaN where the camera did not take the query's identity."""
        return np.stack(
            [
                average_precision(sort_ragged(ranks, part.offsets), part.offsets)
                for ranks, part in zip(self._ranks, self._matches, strict=True)
            ]
        )

    def first_ranks(self) -> NDArray[np.int64]:
        """int64 [C, Q], zero where the camera did not take the query's identity."""
        return np.stack(
            [
                first_ranks(sort_ragged(ranks, part.offsets), part.offsets)
                for ranks, part in zip(self._ranks, self._matches, strict=True)
            ]
        )


class PairCollector:
    """Histograms of all distances, and every query's nearest match and nearest other."""

    def __init__(self, matches: Matches, rows: Rows) -> None:
        self._matches = matches
        self._rows = rows
        self._scale = np.float32(BINS / rows.limit)
        self._all = np.zeros(BINS + 1, dtype=np.int64)  # the last one counts excluded items
        self._same = np.zeros(BINS + 1, dtype=np.int64)
        Q = len(matches.offsets) - 1
        self._nearest_same = np.full(Q, np.inf)
        self._nearest_other = np.full(Q, np.inf)

    def take(self, block: Tensor, start: int) -> None:
        values = block.cpu().numpy()
        parts: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

        def count(first: int, last: int) -> None:
            counted = np.zeros(BINS + 1, dtype=np.int64)
            same = np.zeros(BINS + 1, dtype=np.int64)
            size = max(1, _COUNTED // values.shape[1])
            for low, high in blocks(last - first, size):
                bins = np.empty((high - low, values.shape[1]), dtype=np.int64)
                for i, b in enumerate(range(first + low, first + high)):
                    row = np.array(self._rows.to_distance(values[b]))  # a copy
                    bins[i] = np.minimum(row * self._scale, BINS)
                    columns = self._matches.of(start + b)
                    if len(columns):
                        np.add.at(same, bins[i, columns], 1)
                        self._nearest_same[start + b] = row[columns].min()
                        row[columns] = np.inf
                    self._nearest_other[start + b] = row.min()
                counted += np.bincount(bins.ravel(), minlength=BINS + 1)
            parts[first] = counted, same

        spread(count, len(values))
        for counted, same in parts.values():
            self._all += counted
            self._same += same

    def statistics(self) -> PairStatistics:
        """Everything about thresholds."""
        return PairStatistics(
            limit=self._rows.limit,
            same=self._same[:BINS].copy(),
            other=(self._all - self._same)[:BINS],
            nearest_same=self._nearest_same,
            nearest_other=self._nearest_other,
        )
