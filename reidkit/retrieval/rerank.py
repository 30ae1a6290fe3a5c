"""Re-ranking by k-reciprocal encoding (Zhong et al. 2017), sparse and in blocks.

The published code holds several dense [N, N] matrices over queries and gallery together. Here
the nearest neighbours come from blocked products (`neighbours`), encodings are sparse rows, and
the Jaccard distance is worked out only where two rows meet; rows of the final distance leave one
block at a time, straight into the metrics.

Faithful to the authors' Python code, point by point:
- neighbour lists hold the vector itself and run to k1 + 1 entries; the expansion looks
  round(k1 / 2) + 1 far, rounding halves to even, and takes a candidate's set in if more than 2/3
  of it is known already;
- distances are squared Euclidean, of unit vectors for "cosine", and divided by the row's largest;
- ties are broken by position, queries before gallery (the authors leave that to quicksort).
Departures: junk takes no part at all, since no protocol ranks it; under "mars" a query, which
stands in the gallery too, is one vector and not two.
"""

# Q queries, G gallery items, N = all vectors without junk, K neighbours kept, E expansion entries

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from reidkit.errors import ConfigError, DataError
from reidkit.retrieval.distance import DistanceRows, Vectors, blocks, spread
from reidkit.retrieval.embeddings import JUNK, Embeddings
from reidkit.retrieval.neighbours import TILE, Neighbours, find_neighbours
from reidkit.retrieval.products import Product, multiply
from reidkit.retrieval.protocols import ragged_ranges

_ENCODED = 1024  # rows encoded at a time


@dataclass(frozen=True)
class RerankConfig:
    """Parameters as the paper names them; the defaults are its choice for Market-1501.

    Attributes:
        k1: length of the neighbour lists.
        k2: neighbours averaged by the local query expansion; 1 switches it off.
        lam: weight of the original distance, 0 to 1.
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


class RerankedRows:
    """Rows of the re-ranked distance [Q, G]: (1 - lam) Jaccard + lam original, in [0, 1].

    Junk keeps the distance 1: callers leave it out.
    """

    def __init__(
        self,
        original: DistanceRows,
        *,
        encodings: sparse.csr_matrix,
        queries: NDArray[np.int64],
        gallery: NDArray[np.int64],
        columns: NDArray[np.int64],
        farthest: NDArray[np.float32],
        lam: float,
    ) -> None:
        """`encodings` [N, N]; `queries`, `gallery`: rows of it; gallery row i is column
        `columns[i]` of the distance matrix; `farthest` [N] largest original distances."""
        self.original = original
        self._queries = encodings[queries]
        by_column = encodings[gallery].tocsc()  # who in the gallery has an entry in column n
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
                met, overlap = self._overlap(start + b)
                row[met] -= (1 - lam) * overlap / (2 - overlap)

        spread(fill, len(values))
        return block.to(original.device)

    def to_distance(self, values: NDArray[Any]) -> NDArray[Any]:
        return values

    def _overlap(self, q: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Gallery columns g that row q meets, and m = sum_n min(V_q[n], V_g[n]) with each."""
        low, high = self._queries.indptr[q : q + 2]
        entries = self._queries.indices[low:high]
        counts = self._starts[entries + 1] - self._starts[entries]
        at = ragged_ranges(self._starts[entries], counts)
        least = np.minimum(self._weights[at], np.repeat(self._queries.data[low:high], counts))
        columns = np.bincount(self._holders[at], weights=least, minlength=self.shape[1])
        summed = columns.astype(np.float64, copy=False)
        met: NDArray[np.int64] = np.flatnonzero(summed > 0)
        return met, summed[met]


def reranked_rows(
    query: Embeddings,
    gallery: Sequence[Embeddings],
    *,
    config: RerankConfig,
    metric: str = "cosine",
    tile: int = TILE,
    device: torch.device | str | None = None,
    product: Product = multiply,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> RerankedRows:
    """Prepares re-ranking: neighbours and encodings of all vectors.

    Args:
        gallery: the arrays of the ranked gallery; where one of them is `query` itself ("mars"),
            its vectors take part once.
        tile: side of the tiles of the neighbour search.
    Raises:
        DataError: the gallery has fewer than k1 items without junk.
    """
    persons = [np.flatnonzero(part.roles != JUNK) for part in gallery]
    ranked = sum(len(rows) for rows in persons)
    if ranked < config.k1:
        raise DataError(
            f"re-ranking with k1 = {config.k1} needs as many gallery items and there are {ranked}: "
            "give a smaller k1"
        )
    own: list[Embeddings] = [query]
    places: list[NDArray[np.int64]] = []  # where each ranked gallery item stands among the N
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

    vectors = Vectors(own, metric=metric, device=device, product=product)
    K = max(config.k1 + 1, config.k2)
    found = find_neighbours(vectors, K=min(K, total), tile=tile, progress=on_progress)
    encodings = encode(vectors, found, config, progress=on_progress)
    return RerankedRows(
        DistanceRows(query, gallery, metric=metric, device=device, product=product),
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
    progress: Callable[[str, int, int], None] | None = None,
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
    for start, stop in blocks(N, _ENCODED):
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
        if progress is not None:
            progress("encoding", stop, N)
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
    """Which of each vector's neighbours have it among theirs: bool [N, K]."""
    mutual = np.empty(near.shape, dtype=bool)

    def fill(first: int, last: int) -> None:
        for start, stop in blocks(last - first, _ENCODED):
            rows = slice(first + start, first + stop)
            own = np.arange(rows.start, rows.stop, dtype=np.int32)
            mutual[rows] = (near[near[rows]] == own[:, None, None]).any(axis=2)

    spread(fill, len(near))
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

    `place` is where the entry stands in the owner's neighbour list, -1 if nowhere. Sorted by
    owner, then entry.
    """
    K = near.shape[1]
    own, keep = near[start:stop], mutual[start:stop]  # [B, K]: R(i)
    candidates = np.where(keep, own, -1)
    theirs = half[own]  # [B, K, H]: the half-length lists of i's neighbours
    theirs_kept = mutual_half[own] & keep[:, :, None]
    shared = np.zeros(theirs.shape, dtype=bool)  # which of them are in R(i)
    for k in range(K):
        shared |= theirs == candidates[:, k, None, None]
    shared &= theirs_kept
    size = theirs_kept.sum(axis=2)
    taken = shared.sum(axis=2) > 2.0 / 3 * size
    theirs_kept &= taken[:, :, None]

    # one sortable number per entry: the index, then its place in the neighbour list
    place = np.arange(K)
    far = np.iinfo(np.int64).max
    listed = np.where(keep, own.astype(np.int64) * (K + 1) + place, far)
    # entries from others' lists may stand in one's own list without being reciprocal: their
    # distances are known all the same, but looking them up costs more than it saves
    added = np.where(theirs_kept, theirs.astype(np.int64) * (K + 1) + K, far)
    keys = np.concatenate([listed, added.reshape(len(own), -1)], axis=1)
    keys.sort(axis=1)
    entry = keys // (K + 1)
    fresh = keys != far
    fresh[:, 1:] &= entry[:, 1:] != entry[:, :-1]
    rows, at = np.nonzero(fresh)
    position = keys[rows, at] % (K + 1)
    return rows + start, entry[rows, at], np.where(position == K, -1, position)
