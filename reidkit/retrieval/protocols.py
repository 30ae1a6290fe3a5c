"""Evaluation protocols: which gallery items a query is ranked against, and which are matches."""

# Q queries, G gallery items

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, suggest
from reidkit.retrieval.embeddings import JUNK, PERSON, Embeddings


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol.

    All protocols exclude junk from every ranking, count distractors as negatives for every query
    and break ties by gallery order. Without cameras nothing else is excluded: an image that is in
    query and gallery matches itself.

    Attributes:
        name: as in `choices.ProtocolName`.
        cameras: exclude images of the query's identity by the query's camera (Zheng et al. 2015,
            sec. 4).
        queries_in_gallery: the gallery is query followed by gallery.
        num_galleries: 0 ranks the whole gallery; otherwise CMC is the mean over this number of
            random galleries with one image per identity, sampled for each query.
        sampled_precision: AP and INP are means over the sampled galleries, too.
    """

    name: str
    cameras: bool = True
    queries_in_gallery: bool = False
    num_galleries: int = 0
    sampled_precision: bool = False


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("market"),
        Protocol("none", cameras=False),
        Protocol("mars", queries_in_gallery=True),
        # CUHK03's single-gallery-shot CMC in its two published variants: torchreid samples ten
        # galleries and computes AP on the whole one; deep-person-reid and the authors of IAUnet
        # sample a hundred and compute AP on each
        Protocol("cuhk03-classic", num_galleries=10),
        Protocol("cuhk03-classic-sampled", num_galleries=100, sampled_precision=True),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises ConfigError if it is unknown."""
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name}. {suggest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


@dataclass(frozen=True)
class GalleryLabels:
    """Labels of the ranked gallery without its features: pids, camids, roles [G]."""

    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    roles: NDArray[np.uint8]

    def __repr__(self) -> str:
        return f"GalleryLabels({len(self.pids)} items, {len(np.unique(self.pids))} identities)"


def gallery_parts(
    query: Embeddings, gallery: Embeddings, protocol: Protocol
) -> tuple[Embeddings, ...]:
    """The arrays that together are the ranked gallery, in order."""
    return (query, gallery) if protocol.queries_in_gallery else (gallery,)


def join_labels(parts: tuple[Embeddings, ...]) -> GalleryLabels:
    """Labels of the ranked gallery."""
    return GalleryLabels(
        np.concatenate([part.pids for part in parts]),
        np.concatenate([part.camids for part in parts]),
        np.concatenate([part.roles for part in parts]),
    )


@dataclass(frozen=True)
class Matches:
    """True matches and excluded items of every query, as ragged rows.

    Attributes:
        columns: int64 [total], gallery indices of the true matches, ascending in each query.
        offsets: int64 [Q + 1]; query q owns columns[offsets[q]:offsets[q + 1]].
        excluded, excluded_offsets: the same for items excluded from this query's ranking.
        junk: int64 [J], gallery indices excluded from every ranking.
    """

    columns: NDArray[np.int64]
    offsets: NDArray[np.int64]
    excluded: NDArray[np.int64]
    excluded_offsets: NDArray[np.int64]
    junk: NDArray[np.int64]

    def of(self, q: int) -> NDArray[np.int64]:
        """True matches of query `q`."""
        return self.columns[self.offsets[q] : self.offsets[q + 1]]

    def within(self, selected: NDArray[np.int64]) -> Matches:
        """True matches in a part of the gallery, as positions in `selected` (ascending indices).

        Exclusions are not carried over: blocks have them applied before columns are selected.
        """
        Q = len(self.offsets) - 1
        owner = np.repeat(np.arange(Q), np.diff(self.offsets))
        inside = np.isin(self.columns, selected)
        empty = np.zeros(0, dtype=np.int64)
        return Matches(
            columns=np.searchsorted(selected, self.columns[inside]),
            offsets=offsets_of(owner[inside], Q),
            excluded=empty,
            excluded_offsets=np.zeros(Q + 1, dtype=np.int64),
            junk=empty,
        )


def find_matches(
    pids: NDArray[np.int64],
    camids: NDArray[np.int64],
    gallery: GalleryLabels,
    *,
    cameras: bool = True,
) -> Matches:
    """Matches and exclusions of queries with these pids and camids [Q] in the gallery."""
    persons = np.flatnonzero(gallery.roles == PERSON)
    by_pid = persons[np.argsort(gallery.pids[persons], kind="stable")]
    sorted_pids = gallery.pids[by_pid]
    first = np.searchsorted(sorted_pids, pids, side="left")
    count = np.searchsorted(sorted_pids, pids, side="right") - first
    rows = np.repeat(np.arange(len(pids)), count)
    columns = by_pid[ragged_ranges(first, count)]
    same_camera = (
        gallery.camids[columns] == camids[rows] if cameras else np.zeros(len(columns), dtype=bool)
    )
    return Matches(
        columns=columns[~same_camera],
        offsets=offsets_of(rows[~same_camera], len(pids)),
        excluded=columns[same_camera],
        excluded_offsets=offsets_of(rows[same_camera], len(pids)),
        junk=np.flatnonzero(gallery.roles == JUNK),
    )


def ragged_ranges(first: NDArray[Any], count: NDArray[Any]) -> NDArray[np.int64]:
    """The ranges first[i] .. first[i] + count[i] - 1, concatenated."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    within: NDArray[np.int64] = np.arange(total) + np.repeat(first - (ends - count), count)
    return within


def offsets_of(rows: NDArray[np.int64], Q: int) -> NDArray[np.int64]:
    """Start of each row in an ascending list of row numbers: int64 [Q + 1]."""
    offsets = np.zeros(Q + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=Q), out=offsets[1:])
    return offsets
