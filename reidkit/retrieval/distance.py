"""Distances in blocks of rows, made when they are needed and never all at once.

Internally a distance is 1 - cos for "cosine" and the *squared* Euclidean distance for
"euclidean": both are one pass over the product, and both rank alike. `to_distance` turns them
into what users see (1 - cos, or the Euclidean distance).
"""

# Q queries, G gallery items, B rows of one block, D embedding

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.errors import ConfigError, suggest
from reidkit.retrieval.embeddings import Embeddings
from reidkit.retrieval.products import Product, multiply

Metric = Literal["cosine", "euclidean"]

MIB = 2**20
BLOCK_BYTES = 144 * MIB
"""Largest block of distances where nobody set a memory budget. A product reads the whole gallery
for every block, so blocks of few rows waste it: 200 rows cost 12 % more than 500."""
BLOCK_ROWS = 1024
"""Most rows of one block: more gain nothing."""


PAIR_BYTES = 32 * MIB
"""What `Vectors.pairs` gathers at a time."""

_CACHED_BYTES = MIB // 2


class Rows(Protocol):
    """Anything that gives rows of a distance matrix [Q, G]: from features, re-ranked, stored."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def limit(self) -> float:
        """Every distance, as users see it, is smaller."""
        ...

    def block(self, start: int, stop: int) -> Tensor:
        """Rows start..stop as [B, G], the caller's to overwrite until the next call."""
        ...

    def to_distance(self, values: NDArray[Any]) -> NDArray[Any]:
        """Block values as the distances users see."""
        ...


class Vectors:
    """Feature rows of one or more arrays seen as one matrix [N, D], without joining them."""

    def __init__(
        self,
        parts: Sequence[Embeddings],
        *,
        metric: str,
        device: torch.device | str | None = None,
        product: Product = multiply,
    ) -> None:
        check_metric(metric)
        self.product = product
        self.metric = metric
        self.device = torch.device(device or "cpu")
        self.parts = tuple(_as_tensor(part.features).to(self.device) for part in parts)
        dtype = self.parts[0].dtype
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        norms = torch.from_numpy(np.concatenate([part.norms for part in parts]))
        self.inverse_norms = (1 / norms).to(dtype).to(self.device)
        self.squares = norms.square().to(dtype).to(self.device)
        # rounding can set equal vectors so far apart
        self.zero = np.float32(1e-6 * (1 if metric == "cosine" else norms.square().mean().item()))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def runs(self, start: int, stop: int) -> list[tuple[Tensor, int, int]]:
        """The pieces of rows start..stop: (features, first row, last row + 1), no copies."""
        pieces = []
        for part, begin in zip(self.parts, self.starts[:-1].tolist(), strict=True):
            low, high = max(start, begin), min(stop, begin + len(part))
            if low < high:
                pieces.append((part[low - begin : high - begin], low, high))
        return pieces

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop [B, D], of length one for cosine."""
        pieces = [piece for piece, _, _ in self.runs(start, stop)]
        joined = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if self.metric == "cosine":
            return joined * self.inverse_norms[start:stop, None]
        return joined

    def pairs(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Tensor:
        """Distance between rows first[p] and second[p] for every pair p: [P]."""
        found = self.inverse_norms.new_empty(len(first))
        D = self.parts[0].shape[1]
        size = max(1, PAIR_BYTES // (8 * D))
        part_of_first = np.searchsorted(self.starts, first, side="right") - 1
        part_of_second = np.searchsorted(self.starts, second, side="right") - 1
        for a, part_a in enumerate(self.parts):
            for b, part_b in enumerate(self.parts):
                chosen = np.flatnonzero((part_of_first == a) & (part_of_second == b))
                for start, stop in blocks(len(chosen), size):
                    at = chosen[start:stop]
                    i = torch.from_numpy(first[at]).to(self.device)
                    j = torch.from_numpy(second[at]).to(self.device)
                    x = part_a.index_select(0, i - int(self.starts[a]))
                    y = part_b.index_select(0, j - int(self.starts[b]))
                    if self.metric == "cosine":
                        products = torch.linalg.vecdot(x, y)
                        values = 1 - products * self.inverse_norms[i] * self.inverse_norms[j]
                    else:
                        values = x.sub_(y).square_().sum(1)
                    found[torch.from_numpy(at).to(self.device)] = values
        return found.clamp_(min=0)

    def distances(self, rows: Tensor, squares: Tensor, start: int, stop: int, out: Tensor) -> None:
        """Writes distances from `rows` [B, D] (from `rows()`) to own rows start..stop into `out`.

        Args:
            squares: squared lengths of the rows [B], used by "euclidean".
            out: [B, stop - start], its last axis contiguous.
        """
        for piece, low, high in self.runs(start, stop):
            self.product(rows, piece, out[:, low - start : high - start])
        if self.metric == "cosine":
            _fill_cosine(out, self.inverse_norms[start:stop])
        else:
            _fill_euclidean(out, squares, self.squares[start:stop])


class DistanceRows:
    """Rows of the distance matrix between queries and a gallery of one or more arrays."""

    def __init__(
        self,
        query: Embeddings,
        gallery: Sequence[Embeddings],
        *,
        metric: str,
        device: torch.device | str | None = None,
        product: Product = multiply,
    ) -> None:
        self.query = Vectors([query], metric=metric, device=device)
        self.gallery = Vectors(gallery, metric=metric, device=device, product=product)
        self._buffer: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.query), len(self.gallery)

    @property
    def limit(self) -> float:
        if self.query.metric == "cosine":
            return 2.0001
        # a hair more: squares were rounded to float32
        lengths = self.query.squares.max().sqrt() + self.gallery.squares.max().sqrt()
        return float(lengths) * 1.0001

    def block(self, start: int, stop: int) -> Tensor:
        rows = self.query.rows(start, stop)
        if self._buffer is None or len(self._buffer) < len(rows):
            self._buffer = rows.new_empty((len(rows), len(self.gallery)))
        out = self._buffer[: len(rows)]
        self.gallery.distances(rows, self.query.squares[start:stop], 0, len(self.gallery), out)
        return out

    def to_distance(self, values: NDArray[Any]) -> NDArray[Any]:
        return to_distance(values, self.query.metric)


class MatrixRows:
    """Rows of a distance matrix [Q, G] that somebody computed already."""

    def __init__(self, matrix: NDArray[Any]) -> None:
        self.matrix = torch.from_numpy(np.asarray(matrix))

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.matrix.shape[0]), int(self.matrix.shape[1])

    @property
    def limit(self) -> float:
        return float(self.matrix.max()) * 1.0001 or 1.0

    def block(self, start: int, stop: int) -> Tensor:
        return self.matrix[start:stop].clone()

    def to_distance(self, values: NDArray[Any]) -> NDArray[Any]:
        return values


def check_metric(metric: str) -> None:
    """Raises ConfigError for a metric there is not."""
    if metric not in get_args(Metric):
        raise ConfigError(f"unknown metric {metric}. {suggest(metric, get_args(Metric))}")


def to_distance(values: NDArray[Any], metric: str) -> NDArray[Any]:
    """Block values as users see them: 1 - cos, or the Euclidean distance."""
    values = np.maximum(values, 0)  # below zero is rounding
    return np.sqrt(values) if metric == "euclidean" else values


def block_rows(G: int, *, itemsize: int = 4, budget: int | None = None) -> int:
    """How many rows of G distances make a block: as many as the budget holds, at least one."""
    return max(1, min(BLOCK_ROWS, (BLOCK_BYTES if budget is None else budget) // (G * itemsize)))


def blocks(Q: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of blocks of `size` rows."""
    return [(start, min(start + size, Q)) for start in range(0, Q, size)]


def spread(function: Callable[[int, int], None], count: int, *, workers: int = 0) -> None:
    """Runs function(start, stop) over 0..count cut into one range per thread.

    NumPy lets go of the interpreter inside its loops, and on a CPU its element-wise loops beat
    torch's by several times: torch is used for products only.

    Args:
        workers: 0 takes as many as torch uses.
    """
    workers = min(workers or torch.get_num_threads(), count)
    if workers <= 1:
        function(0, count)
        return
    edges = np.linspace(0, count, workers + 1).astype(int).tolist()
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(function, a, b) for a, b in pairwise(edges)]:
            done.result()


def _as_tensor(array: NDArray[Any]) -> Tensor:
    """The array itself as a tensor; nothing here writes to it, so read-only ones will do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _fill_cosine(out: Tensor, inverse_norms: Tensor) -> None:
    """out = 1 - out * inverse_norms, in place. Equal vectors may come out just below zero."""
    if out.device.type != "cpu":
        out.mul_(-inverse_norms).add_(1)
        return
    values, scale = out.numpy(), -inverse_norms.numpy()

    def fill(start: int, stop: int) -> None:
        for rows in _cached(values, start, stop):
            np.multiply(values[rows], scale, out=values[rows])
            np.add(values[rows], 1, out=values[rows])

    spread(fill, len(values))


def _fill_euclidean(out: Tensor, row_squares: Tensor, column_squares: Tensor) -> None:
    """out = |row|^2 + |column|^2 - 2 out, in place. Equal vectors may come out below zero."""
    if out.device.type != "cpu":
        out.mul_(-2).add_(column_squares).add_(row_squares[:, None])
        return
    values, squares = out.numpy(), column_squares.numpy()
    own = row_squares.numpy()[:, None]

    def fill(start: int, stop: int) -> None:
        for rows in _cached(values, start, stop):
            np.multiply(values[rows], -2, out=values[rows])
            np.add(values[rows], squares, out=values[rows])
            np.add(values[rows], own[rows], out=values[rows])

    spread(fill, len(values))


def _cached(values: NDArray[Any], start: int, stop: int) -> list[slice]:
    """Runs of rows small enough to stay in a core's cache from one pass to the next."""
    size = max(1, _CACHED_BYTES // (values.shape[1] * values.itemsize))
    return [slice(a, min(a + size, stop)) for a in range(start, stop, size)]
