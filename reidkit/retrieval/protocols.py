"""Ranking rules: which gallery items a query sees, and which of them are right."""

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
    """A ranking rule.

    In all of them junk is left out of every ranking, a distractor is wrong for everybody, and
    ties are broken by gallery order. Without cameras nothing else is left out: a picture that is
    in query and gallery finds itself.

    Attributes:
        name: what users type.
        cameras: the query's own identity by the query's own camera is left out of its ranking
            (Zheng et al. 2015, sec. 4).
        queries_in_gallery: the gallery is query followed by gallery.
        draws: 0 ranks the whole gallery; otherwise so many random galleries of one image per
            identity are drawn for each query, and CMC is their mean.
        sampled_precision: AP and INP are also means over the drawn galleries instead of values
            of the whole gallery.
    """

    name: str
    cameras: bool = True
    queries_in_gallery: bool = False
    draws: int = 0
    sampled_precision: bool = False


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("market"),
        Protocol("none", cameras=False),
        # the gallery is one item per class, so that rank-1 is the classifier's accuracy
        Protocol("classification", cameras=False),
        Protocol("mars", queries_in_gallery=True),
        # CUHK03's single-gallery-shot CMC in its two published variants: torchreid draws ten
        # galleries and takes AP from the whole one; deep-person-reid and the authors of IAUnet
        # draw a hundred and take AP from each
        Protocol("cuhk03-classic", draws=10),
        Protocol("cuhk03-classic-sampled", draws=100, sampled_precision=True),
    )
}


@dataclass(frozen=True)
class Matches:
    """Who is right and who is left out, for every query, as ragged rows.

    Attributes:
        columns: int64 [total], gallery indices of the true matches, ascending in each query.
        offsets: int64 [Q + 1]; query q owns columns[offsets[q]:offsets[q + 1]].
        excluded, excluded_offsets: the same for items left out of this query's ranking.
        junk: int64 [J], gallery indices left out of every ranking.
    """

    columns: NDArray[np.int64]
    offsets: NDArray[np.int64]
    excluded: NDArray[np.int64]
    excluded_offsets: NDArray[np.int64]
    junk: NDArray[np.int64]

    def of(self, q: int) -> NDArray[np.int64]:
        """True matches of query `q`."""
        return self.columns[self.offsets[q] : self.offsets[q + 1]]

    def excluded_of(self, q: int) -> NDArray[np.int64]:
        """Gallery items left out for query `q` alone."""
        return self.excluded[self.excluded_offsets[q] : self.excluded_offsets[q + 1]]


@dataclass(frozen=True)
class GalleryLabels:
    """Labels of the gallery a protocol ranks, without its features: pids, camids, roles [G]."""

    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    roles: NDArray[np.uint8]


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises ConfigError if there is none."""
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name}. {suggest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def gallery_parts(
    query: Embeddings, gallery: Embeddings, protocol: Protocol
) -> tuple[Embeddings, ...]:
    """The arrays that stand one after the other in the ranked gallery."""
    return (query, gallery) if protocol.queries_in_gallery else (gallery,)


def join_labels(parts: tuple[Embeddings, ...]) -> GalleryLabels:
    """Labels of the joined gallery."""
    return GalleryLabels(
        np.concatenate([part.pids for part in parts]),
        np.concatenate([part.camids for part in parts]),
        np.concatenate([part.roles for part in parts]),
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
    excluded_offsets = offsets_of(rows[same_camera], len(pids))
    return Matches(
        columns=columns[~same_camera],
        offsets=offsets_of(rows[~same_camera], len(pids)),
        excluded=columns[same_camera],
        excluded_offsets=excluded_offsets,
        junk=np.flatnonzero(gallery.roles == JUNK),
    )


def ragged_ranges(first: NDArray[Any], count: NDArray[Any]) -> NDArray[np.int64]:
    """first[0], first[0]+1, ... (count[0] of them), first[1], ... as one array."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    within: NDArray[np.int64] = np.arange(total) + np.repeat(first - (ends - count), count)
    return within


def offsets_of(rows: NDArray[np.int64], Q: int) -> NDArray[np.int64]:
    """Where each row starts in an ascending list of row numbers: int64 [Q + 1]."""
    offsets = np.zeros(Q + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=Q), out=offsets[1:])
    return offsets
