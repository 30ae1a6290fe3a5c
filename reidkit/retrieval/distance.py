"""Distances, computed one block of rows at a time and never all at once.

Internally a distance is 1 - cos for "cosine" and the *squared* Euclidean distance for
"euclidean": both are one pass over the matrix product and give the same ranking. `to_distance`
turns them into what users see (1 - cos, or the Euclidean distance).
"""

# Q queries, G gallery items, B rows of one block, D embedding, P pairs

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.choices import Metric
from reidkit.errors import ConfigError, suggest
from reidkit.retrieval.blocks import MIB, chunks, parallel_for
from reidkit.retrieval.embeddings import Embeddings

PAIR_BYTES = 32 * MIB
"""Memory of the vectors that `Vectors.pairs` gathers at a time."""

_CACHE_BYTES = MIB // 2


class Distances(Protocol):
    """A distance matrix [Q, G] of which one block of rows exists at a time."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def limit(self) -> float:
        """Upper bound of all distances as users see them."""
        ...

    def block(self, start: int, stop: int) -> Tensor:
        """Rows start..stop [B, G]; the caller may overwrite them until the next call."""
        ...

    def to_distance(self, values: NDArray[Any]) -> NDArray[Any]:
        """Converts values of a block into the distances users see."""
        ...


class FeatureDistances:
    """Distances between queries and a gallery of one or more arrays."""

    def __init__(
        self,
        query: Embeddings,
        gallery: Sequence[Embeddings],
        *,
        metric: str,
        device: torch.device | str | None = None,
    ) -> None:
        self.query = Vectors([query], metric=metric, device=device)
        self.gallery = Vectors(gallery, metric=metric, device=device)
        self._buffer: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.query), len(self.gallery)

    @property
    def limit(self) -> float:
        if self.query.metric == "cosine":
            return 2.0001
        lengths = self.query.squares.max().sqrt() + self.gallery.squares.max().sqrt()
        return float(lengths) * 1.0001  # squares were rounded to float32

    def block(self, start: int, stop: int) -> Tensor:
        rows = self.query.rows(start, stop)
        if self._buffer is None or len(self._buffer) < len(rows):
            self._buffer = rows.new_empty((len(rows), len(self.gallery)))
        out = self._buffer[: len(rows)]
        self.gallery.distances(rows, self.query.squares[start:stop], 0, len(self.gallery), out)
        return out

    def to_distance(self, values: NDArray[Any]) -> NDArray[Any]:
        values = np.maximum(values, 0)  # rounding can make them negative
        return np.sqrt(values) if self.query.metric == "euclidean" else values


class PrecomputedDistances:
    """A distance matrix [Q, G] that exists already."""

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


class Vectors:
    """Feature rows of one or more arrays as one matrix [N, D], without copying them."""

    def __init__(
        self,
        parts: Sequence[Embeddings],
        *,
        metric: str,
        device: torch.device | str | None = None,
    ) -> None:
        check_metric(metric)
        self.metric = metric
        self.device = torch.device(device or "cpu")
        self.parts = tuple(_as_tensor(part.features).to(self.device) for part in parts)
        dtype = self.parts[0].dtype
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        norms = torch.from_numpy(np.concatenate([part.norms for part in parts]))
        self.inverse_norms = (1 / norms).to(dtype).to(self.device)
        self.squares = norms.square().to(dtype).to(self.device)
        # rounding can leave equal vectors this far apart
        self.zero = np.float32(1e-6 * (1 if metric == "cosine" else norms.square().mean().item()))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def runs(self, start: int, stop: int) -> list[tuple[Tensor, int, int]]:
        """The pieces of rows start..stop as (features, first row, last row + 1), not copied."""
        pieces = []
        for part, begin in zip(self.parts, self.starts[:-1].tolist(), strict=True):
            low, high = max(start, begin), min(stop, begin + len(part))
            if low < high:
                pieces.append((part[low - begin : high - begin], low, high))
        return pieces

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop [B, D], L2-normalised for cosine."""
        pieces = [piece for piece, _, _ in self.runs(start, stop)]
        joined = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if self.metric == "cosine":
            return joined * self.inverse_norms[start:stop, None]
        return joined

    def distances(self, rows: Tensor, squares: Tensor, start: int, stop: int, out: Tensor) -> None:
        """Writes distances from `rows` [B, D] (from `rows()`) to rows start..stop into `out`.

        Args:
            squares: squared lengths of `rows` [B], used by "euclidean".
            out: [B, stop - start], its last axis contiguous.
        """
        for piece, low, high in self.runs(start, stop):
            multiply(rows, piece, out[:, low - start : high - start])
        if self.metric == "cosine":
            _fill_cosine(out, self.inverse_norms[start:stop])
        else:
            _fill_euclidean(out, squares, self.squares[start:stop])

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
                for start, stop in chunks(len(chosen), size):
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


def check_metric(metric: str) -> None:
    """Raises ConfigError for an unknown metric."""
    if metric not in get_args(Metric):
        raise ConfigError(f"unknown metric {metric}. {suggest(metric, get_args(Metric))}")


def multiply(rows: Tensor, columns: Tensor, out: Tensor) -> None:
    """Writes rows [B, D] @ columns [C, D].T into `out` [B, C], in full float32."""
    with full_precision():
        torch.mm(rows, columns.T, out=out)


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products in full float32, whatever `torch.set_float32_matmul_precision` allows.

    Training may allow "medium", which costs four digits and changes ranks.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # precision was set per backend, which this function cannot read
        with _full_precision_of_backends():
            yield
        return
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _full_precision_of_backends() -> Iterator[None]:
    mkldnn: Any = torch.backends.mkldnn
    switches = (torch.backends.cuda.matmul, mkldnn.matmul)
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


def _as_tensor(array: NDArray[Any]) -> Tensor:
    """The array itself as a tensor; it is never written to, so it may be read-only."""
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

    parallel_for(fill, len(values))


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

    parallel_for(fill, len(values))


def _cached(values: NDArray[Any], start: int, stop: int) -> list[slice]:
    """Runs of rows small enough to stay in a core's cache from one pass to the next."""
    size = max(1, _CACHE_BYTES // (values.shape[1] * values.itemsize))
    return [slice(a, min(a + size, stop)) for a in range(start, stop, size)]
