"""Re-ranking by k-reciprocal encoding (Zhong et al. 2017), sparse and in blocks.

The published code keeps several dense [N, N] matrices over queries and gallery together. Here
the nearest neighbours come from blocked products (`neighbours`), encodings are sparse rows, the
Jaccard distance is computed only where two rows overlap, and the final distances are computed one
block of rows at a time.

As in the authors' Python code:
- neighbour lists include the vector itself and have k1 + 1 entries; the expansion uses lists of
  round(k1 / 2) + 1 entries, rounding halves to even, and adds a candidate's set if more than 2/3
  of it is in the own set;
- distances are squared Euclidean, of unit vectors for "cosine", and divided by the row's largest;
- ties are broken by position, queries before gallery (undefined in the authors' code, which uses
  quicksort).
Departures: junk takes no part, since no protocol ranks it; under "mars" a query, which is in the
gallery as well, is one vector and not two.
"""

# Q queries, G gallery items, N all vectors but junk, K neighbours per list,
# H neighbours per half-length list, B rows of one block

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from reidkit.errors import ConfigError, DataError
from reidkit.retrieval.blocks import TILE, Progress, chunks, parallel_for
from reidkit.retrieval.distance import FeatureDistances, Vectors
from reidkit.retrieval.embeddings import JUNK, Embeddings
from reidkit.retrieval.neighbours import Neighbours, find_neighbours
from reidkit.retrieval.protocols import ragged_ranges

_ENCODED = 1024  # rows encoded at a time


@dataclass(frozen=True)
class RerankConfig:
    """Parameters of the paper; the defaults are its values for Market-1501.

    Attributes:
        k1: length of the neighbour lists.
        k2: number of neighbours averaged by the local query expansion; 1 disables it.
        lam: weight (lambda) of the original distance, 0 to 1.
    """

    k1: int = 20
    k2: int = 6
    lam: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1:
            raise ConfigError(f"re-ranking needs k1 and k2 of at least 1, got {self.k1}, {self.k2}")
        if not 0 <= self.lam <= 1:
            raise ConfigError(f"re-ranking needs lambda between 0 and 1, got {self.lam}")

    def to_dict(self) -> dict[str, float]:
        return {key.replace("lam", "lambda"): value for key, value in asdict(self).items()}


class RerankedDistances:
    """Re-ranked distances [Q, G]: (1 - lam) Jaccard + lam original, in [0, 1].

    Distances of junk have no meaning: callers exclude it.
    """

    def __init__(
        self,
        original: FeatureDistances,
        *,
        encodings: sparse.csr_matrix,
        queries: NDArray[np.int64],
        gallery: NDArray[np.int64],
        columns: NDArray[np.int64],
        farthest: NDArray[np.float32],
        lam: float,
    ) -> None:
        """
        Args:
            encodings: [N, N].
            queries, gallery: rows of `encodings`.
            columns: column of the distance matrix of each row in `gallery`.
            farthest: [N], largest original distance of each vector.
        """
        self.original = original
        self._queries = encodings[queries]
        by_column = encodings[gallery].tocsc()  # gallery rows with an entry in column n
        self._starts = by_column.indptr.astype(np.int64)
        self._holders = columns[by_column.indices].astype(np.int32)
        self._weights = by_column.data
        self._farthest = farthest[queries]
        self._lam = lam

    @property
    def shape(self) -> tuple[int, int]:
        return self.original.shape

    @property
    def limit(self) -> float:
        return 1.0001  # d(q, g) and the largest d(q, n) come from two products

    def block(self, start: int, stop: int) -> Tensor:
        original = self.original.block(start, stop)
        block = original if original.device.type == "cpu" else original.cpu()
        values = block.numpy()
        lam = self._lam

        def fill(first: int, last: int) -> None:
            for b in range(first, last):
                row = values[b]
                np.multiply(row, lam / self._farthest[start + b], out=row)
                np.add(row, 1 - lam, out=row)
                # Jaccard distance 1 - m / (2 - m), since each encoding sums to 1
                at, overlap = self._overlap(start + b)
                row[at] -= (1 - lam) * overlap / (2 - overlap)

        parallel_for(fill, len(values))
        return block.to(original.device)

    def to_distance(self, values: NDArray[Any]) -> NDArray[Any]:
        return values

    def _overlap(self, q: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Gallery columns g whose encoding overlaps with V_q, and m = sum_n min(V_q[n], V_g[n])."""
        low, high = self._queries.indptr[q : q + 2]
        entries = self._queries.indices[low:high]
        counts = self._starts[entries + 1] - self._starts[entries]
        at = ragged_ranges(self._starts[entries], counts)
        least = np.minimum(self._weights[at], np.repeat(self._queries.data[low:high], counts))
        columns = np.bincount(self._holders[at], weights=least, minlength=self.shape[1])
        summed = columns.astype(np.float64, copy=False)
        overlapping: NDArray[np.int64] = np.flatnonzero(summed > 0)
        return overlapping, summed[overlapping]


def rerank_distances(
    query: Embeddings,
    gallery: Sequence[Embeddings],
    *,
    config: RerankConfig,
    metric: str = "cosine",
    tile: int = TILE,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> RerankedDistances:
    """Finds neighbours and encodings of all vectors; distances follow block by block.

    Args:
        gallery: the arrays of the ranked gallery; if one of them is `query` itself ("mars"), its
            vectors take part once.
        tile: side of the tiles of the neighbour search.
    Raises:
        DataError: the gallery has fewer than k1 items, not counting junk.
    """
    persons = [np.flatnonzero(part.roles != JUNK) for part in gallery]
    ranked = sum(len(rows) for rows in persons)
    if ranked < config.k1:
        raise DataError(
            f"re-ranking with k1 = {config.k1} needs at least {config.k1} gallery items, found "
            f"{ranked}: use a smaller k1"
        )
    own: list[Embeddings] = [query]
    places: list[NDArray[np.int64]] = []  # index of each ranked gallery item among the N
    total = len(query)
    for part, rows in zip(gallery, persons, strict=True):
        if part is query:
            places.append(rows)
            continue
        own.append(part if len(rows) == len(part) else part.take(rows))
        places.append(np.arange(total, total + len(rows)))
        total += len(rows)
    starts = np.cumsum([0, *(len(part) for part in gallery)])[:-1]
    columns = np.concatenate([rows + begin for rows, begin in zip(persons, starts, strict=True)])

    vectors = Vectors(own, metric=metric, device=device)
    K = max(config.k1 + 1, config.k2)
    found = find_neighbours(vectors, K=min(K, total), tile=tile, on_progress=on_progress)
    encodings = encode(vectors, found, config, on_progress=on_progress)
    return RerankedDistances(
        FeatureDistances(query, gallery, metric=metric, device=device),
        encodings=encodings,
        queries=np.arange(len(query)),
        gallery=np.concatenate(places),
        columns=columns,
        farthest=found.farthest,
        lam=config.lam,
    )


def encode(
    vectors: Vectors,
    found: Neighbours,
    config: RerankConfig,
    *,
    on_progress: Progress | None = None,
) -> sparse.csr_matrix:
    """Encodings V of all vectors as sparse rows [N, N] after local query expansion; rows sum to 1.

    V_i[j] is proportional to exp(-d(i, j) / max_n d(i, n)) on i's expanded k-reciprocal set and
    zero elsewhere (Zhong et al. 2017, eq. 7); the expansion averages the rows of i's first k2
    neighbours (eq. 11).
    """
    N = len(found.index)
    near = found.index[:, : config.k1 + 1]
    half = found.index[:, : int(np.around(config.k1 / 2)) + 1]
    mutual = _reciprocal(near)
    mutual_half = _reciprocal(half)
    indptr = np.zeros(N + 1, dtype=np.int64)
    indices: list[NDArray[np.int32]] = []
    weights: list[NDArray[np.float32]] = []
    for start, stop in chunks(N, _ENCODED):
        owner, entry, known = _expanded(near, mutual, half, mutual_half, start, stop)
        distance = np.empty(len(entry), dtype=np.float32)
        listed = known >= 0
        distance[listed] = found.distance[owner[listed], known[listed]]
        distance[~listed] = vectors.pairs(owner[~listed], entry[~listed]).cpu().numpy()
        weight = np.exp(-distance / found.farthest[owner])
        counts = np.bincount(owner - start, minlength=stop - start)
        sums = np.bincount(owner - start, weights=weight, minlength=stop - start)
        indices.append(entry.astype(np.int32))
        weights.append((weight / sums[owner - start]).astype(np.float32))
        indptr[start + 1 : stop + 1] = counts
        if on_progress is not None:
            on_progress("encoding", stop, N)
    encodings = sparse.csr_matrix(
        (np.concatenate(weights), np.concatenate(indices), np.cumsum(indptr)), shape=(N, N)
    )
    if config.k2 == 1:
        return encodings
    k2 = min(config.k2, found.index.shape[1])
    mean = sparse.csr_matrix(
        (
            np.full(N * k2, 1 / k2, dtype=np.float32),
            found.index[:, :k2].ravel(),
            np.arange(0, N * k2 + 1, k2),
        ),
        shape=(N, N),
    )
    return mean @ encodings


def _reciprocal(near: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each neighbour has the vector in its own list: bool [N, K]."""
    mutual = np.empty(near.shape, dtype=bool)

    def fill(first: int, last: int) -> None:
        for start, stop in chunks(last - first, _ENCODED):
            rows = slice(first + start, first + stop)
            own = np.arange(rows.start, rows.stop, dtype=np.int32)
            mutual[rows] = (near[near[rows]] == own[:, None, None]).any(axis=2)

    parallel_for(fill, len(near))
    return mutual


def _expanded(
    near: NDArray[np.int32],
    mutual: NDArray[np.bool_],
    half: NDArray[np.int32],
    mutual_half: NDArray[np.bool_],
    start: int,
    stop: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Expanded k-reciprocal sets of rows start..stop, as flat (owner, entry, place).

    `place` is the entry's position in the owner's neighbour list, -1 if it is not in it. Sorted
    by owner, then entry.
    """
    K = near.shape[1]
    own, keep = near[start:stop], mutual[start:stop]  # [B, K]: R(i)
    reciprocal = np.where(keep, own, -1)
    candidates = half[own]  # [B, K, H]: the half-length lists of i's neighbours
    candidates_kept = mutual_half[own] & keep[:, :, None]
    shared = np.zeros(candidates.shape, dtype=bool)  # which of them are in R(i)
    for k in range(K):
        shared |= candidates == reciprocal[:, k, None, None]
    shared &= candidates_kept
    size = candidates_kept.sum(axis=2)
    taken = shared.sum(axis=2) > 2.0 / 3 * size
    candidates_kept &= taken[:, :, None]

    # one sortable number per entry: the index, then its place in the neighbour list
    place = np.arange(K)
    far = np.iinfo(np.int64).max
    listed = np.where(keep, own.astype(np.int64) * (K + 1) + place, far)
    # entries of others' lists may be in the own list without being reciprocal: their distances are
    # known as well, but looking them up takes longer than computing them
    added = np.where(candidates_kept, candidates.astype(np.int64) * (K + 1) + K, far)
    keys = np.concatenate([listed, added.reshape(len(own), -1)], axis=1)
    keys.sort(axis=1)
    entry = keys // (K + 1)
    fresh = keys != far
    fresh[:, 1:] &= entry[:, 1:] != entry[:, :-1]
    rows, at = np.nonzero(fresh)
    position = keys[rows, at] % (K + 1)
    return rows + start, entry[rows, at], np.where(position == K, -1, position)
