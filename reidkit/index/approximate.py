"""Approximate search by FAISS in an index directory (the extra `faiss`).

The FAISS index covers the vectors that were there when it was built; later ones are searched
exactly, and removed or filtered ones are never found. Its recall is measured on the vectors
themselves and stored.
"""

# N vectors, Q queries, D embedding, n list length; a slot is a row of the vector file

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.choices import ApproximateSearch
from reidkit.config import from_table
from reidkit.errors import ConfigError, DataError, RuntimeMissing
from reidkit.files import atomic
from reidkit.index.directory import IndexDirectory
from reidkit.index.records import Filter

log = logging.getLogger(__name__)

MIN_VECTORS = 1000
"""Below, exact search is faster than any approximation."""
RECALL_QUERIES = 500
RECALL_LENGTH = 10
"""Recall is the share of the 10 nearest others of 500 stored vectors that is found."""
RECALL_GOAL = 0.99
EFFORTS: dict[ApproximateSearch, tuple[int, ...]] = {
    "ivf": (1, 2, 4, 8, 16, 32, 64),
    "hnsw": (16, 32, 64, 128, 256, 512),
}
"""The first of these that reaches `RECALL_GOAL` is stored, else the last."""
_KEY = "approximate"
_MAX_EFFORT = 1 << 16
_TRAINING_PER_LIST = 64
_ADDED_ROWS = 1 << 16


@dataclass(frozen=True)
class Approximation:
    """What is stored about a FAISS index.

    Attributes:
        kind: "ivf" or "hnsw".
        vectors: name of the vector file that it was built from.
        slots: number of slots of that file that it covers.
        effort: lists that IVF visits (nprobe), or candidates that HNSW keeps (efSearch).
        recall: measured recall at 10.
    """

    kind: ApproximateSearch
    vectors: str
    slots: int
    effort: int
    recall: float


class ApproximateDirectory(IndexDirectory):
    """An index directory that is searched by FAISS if it has a FAISS index."""

    _loaded: tuple[Approximation, Any] | None = None
    out_of_date: Approximation | None = None
    """The FAISS index that was last reported as out of date."""

    def search_unit(
        self, unit: NDArray[np.float32], n: int, condition: Filter
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        approximation = read_approximation(self)
        if approximation is None:
            return super().search_unit(unit, n, condition)
        allowed = self.allowed(condition)
        index = self._load(approximation)
        kind, effort = approximation.kind, approximation.effort
        try:
            found = _search(index, unit, n, allowed, kind=kind, effort=effort)
        except (RuntimeError, MemoryError) as error:
            raise self._unreadable(approximation, "be searched") from error
        return _merge(found, self.nearest(unit, n, allowed, first=approximation.slots), n)

    def info(self) -> dict[str, Any]:
        with self.snapshot():
            approximation = read_approximation(self)
        return super().info() | {"approximate": approximation and asdict(approximation)}

    def _unreadable(self, approximation: Approximation, what: str) -> DataError:
        return DataError(
            f"{self.path / f'{approximation.kind}.faiss'} cannot {what} by FAISS. Build it again: "
            f"reidkit index add {self.path} --approximate {approximation.kind}"
        )

    def _load(self, approximation: Approximation) -> Any:
        if self._loaded is not None and self._loaded[0] == approximation:
            return self._loaded[1]
        faiss = _import_faiss()
        file = self.path / f"{approximation.kind}.faiss"
        try:
            index = faiss.read_index(str(file))
        except (RuntimeError, MemoryError) as error:
            raise self._unreadable(approximation, "be read") from error
        if index.d != self.header.dimension or index.ntotal != approximation.slots:
            raise DataError(
                f"{file} does not belong to {self.name}. Build it again: "
                f"reidkit index add {self.path} --approximate {approximation.kind}"
            )
        self._loaded = (approximation, index)
        return index


def read_approximation(directory: ApproximateDirectory) -> Approximation | None:
    """The FAISS index of a directory; None if there is none, or if compaction has renumbered the
    vectors since, which is logged once."""
    text = directory.meta(_KEY)
    if text is None:
        return None
    try:
        approximation = from_table(Approximation, json.loads(text), where=_KEY)
        if approximation.slots < 0 or not 1 <= approximation.effort <= _MAX_EFFORT:
            raise ConfigError("impossible numbers")
    except (ValueError, TypeError, RecursionError, ConfigError) as error:
        raise DataError(f"{directory.name}: the record of its FAISS index is damaged") from error
    file, slots = directory.file_and_slots()
    if approximation.vectors != file or approximation.slots > slots:
        if directory.out_of_date != approximation:
            log.warning(
                "%s: its FAISS index is out of date, so the search is exact. Build it again: "
                "reidkit index add %s --approximate %s",
                *(directory.name, directory.path, approximation.kind),
            )
        directory.out_of_date = approximation
        return None
    return approximation


def check_count(most: int, name: str) -> None:
    """Raises ConfigError if an index of at most `most` vectors is too small to search
    approximately, and RuntimeMissing if FAISS is not installed."""
    _import_faiss()
    if most < MIN_VECTORS:
        raise ConfigError(
            f"{name}: at most {most} vectors, and exact search is faster below {MIN_VECTORS:,}. "
            "Leave --approximate out"
        )


def build_approximation(
    directory: IndexDirectory, kind: ApproximateSearch, *, seed: int = 0
) -> Approximation:
    """Builds the FAISS index of a directory, measures its recall and stores both.

    IVF visits as many of its lists, and HNSW keeps as many candidates, as `RECALL_GOAL` takes
    (`EFFORTS`).

    Raises:
        RuntimeMissing: FAISS is not installed.
        ConfigError: there are too few vectors to gain anything.
    """
    file, slots = directory.file_and_slots()
    allowed = directory.allowed()
    present = np.arange(slots) if allowed is None else np.flatnonzero(allowed)
    N = len(present)
    check_count(N, directory.name)
    faiss = _import_faiss()
    vectors = directory.vectors()
    rng = np.random.default_rng(seed)
    lists = int(4 * np.sqrt(N))
    index = faiss.index_factory(
        directory.header.dimension,
        f"IVF{lists},Flat" if kind == "ivf" else "HNSW32,Flat",
        faiss.METRIC_INNER_PRODUCT,
    )
    sample = rng.choice(present, min(N, _TRAINING_PER_LIST * lists), replace=False)
    index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    for start in range(0, slots, _ADDED_ROWS):  # removed ones, too: a number is a slot
        index.add(np.ascontiguousarray(vectors[start : start + _ADDED_ROWS]))
    rows = np.sort(rng.choice(present, min(N, RECALL_QUERIES), replace=False))
    n = RECALL_LENGTH + 1  # a stored vector finds itself
    exact, _ = directory.nearest(vectors[rows], n, allowed)
    recall, effort = 0.0, 0
    for effort in EFFORTS[kind]:
        found, _ = _search(index, vectors[rows], n, allowed, kind=kind, effort=effort)
        recall = _recall(found, exact, rows)
        if recall >= RECALL_GOAL:
            break
    approximation = Approximation(kind, file, slots, effort, round(recall, 4))
    with atomic(directory.path / f"{kind}.faiss") as partial:
        faiss.write_index(index, str(partial))
    directory.set_meta(_KEY, json.dumps(asdict(approximation)))
    return approximation


def _search(
    index: Any,
    unit: NDArray[np.float32],
    n: int,
    allowed: NDArray[np.bool_] | None,
    *,
    kind: ApproximateSearch,
    effort: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Slots [Q, n] and cosines [Q, n], best first; -1 and -inf where there are fewer."""
    faiss = _import_faiss()
    selector = None
    if allowed is not None:
        bits = np.packbits(allowed[: index.ntotal], bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
    parameters = (
        faiss.SearchParametersIVF(sel=selector, nprobe=effort)
        if kind == "ivf"
        else faiss.SearchParametersHNSW(sel=selector, efSearch=max(effort, 2 * n))
    )
    cosines, slots = index.search(np.ascontiguousarray(unit), n, params=parameters)
    return slots, np.where(slots >= 0, cosines, -np.inf).astype(np.float32)


def _merge(
    a: tuple[NDArray[np.int64], NDArray[np.float32]],
    b: tuple[NDArray[np.int64], NDArray[np.float32]],
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    slots = np.concatenate([a[0], b[0]], axis=1)
    cosines = np.concatenate([a[1], b[1]], axis=1)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(slots, order, 1), np.take_along_axis(cosines, order, 1)


def _recall(found: NDArray[np.int64], exact: NDArray[np.int64], rows: NDArray[np.int64]) -> float:
    """Share of the nearest others of `rows` that was found."""
    hits = total = 0
    for mine, theirs, own in zip(found.tolist(), exact.tolist(), rows.tolist(), strict=True):
        expected = [slot for slot in theirs if slot not in (own, -1)][:RECALL_LENGTH]
        hits += len(set(expected) & set(mine))
        total += len(expected)
    return hits / total


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise RuntimeMissing(
            "approximate search needs FAISS. Run: pip install 'reidkit[faiss]', or search exactly"
        ) from error
    return faiss
