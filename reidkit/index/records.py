"""What an index stores and returns, and the one interface of all kinds of index."""

# N vectors, Q queries, D embedding

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.vectors import checked_norms, unit_rows

FORMAT = 1
DATABASE = "records.sqlite"
"""The file by which a directory is known as an index."""


def is_qdrant(address: str) -> bool:
    """Whether `address` is qdrant://HOST:PORT/COLLECTION."""
    return address.startswith(("qdrant://", "qdrants://"))


def is_index(address: str) -> bool:
    """Whether `address` names an index: a directory with one, or a Qdrant collection."""
    return is_qdrant(address) or (Path(address) / DATABASE).is_file()


@dataclass(frozen=True)
class Header:
    """How the vectors of an index were computed: only vectors of the same kind are comparable.

    Attributes:
        model: file of the model, so that `index add` and `search` find it again.
        model_sha256: of that file; "" for features of another tool.
        preprocess: of the images, as JSON (`Preprocess.to_json`).
        flip: whether embeddings of mirrored images were added.
        dimension: D.
    """

    model: str
    model_sha256: str
    preprocess: str
    flip: bool
    dimension: int

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: object, *, where: str) -> Header:
        """Raises DataError: it is not the header of this format."""
        try:
            table = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            table = None
        kinds = {field.name: field.type for field in dataclasses.fields(cls)}
        if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
            raise DataError(
                f"{where} is not an index of format {FORMAT}. Build it again: reidkit index build"
            )
        for name, kind in kinds.items():
            if type(table.get(name)).__name__ != kind:
                raise DataError(f"{where}: header field {name} is {table.get(name)!r}, not {kind}")
        if set(table) != set(kinds) or not 0 < table["dimension"] <= 1 << 20:
            raise DataError(f"{where}: the header is damaged. Build the index again")
        return cls(**table)

    def check_model(self, source_hash: str, *, model: Path, where: str) -> None:
        """Raises DataError: the model of this hash is not the one that embedded the vectors."""
        if source_hash != self.model_sha256:
            raise DataError(
                f"{model} is not the model that {where} was built with "
                f"({self.model or 'features of another tool'}). Use that one, or build a new index"
            )

    def check_same_model(self, other: Header, *, where: str) -> None:
        """Raises DataError: `other` was computed with another model or in another way."""
        for name in ("dimension", "model_sha256", "preprocess", "flip"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                use = self.model or "the model that built it"
                if name == "preprocess":
                    use += " and its preprocessing (--preprocess FILE, or --size, --mean, ...)"
                raise DataError(
                    f"{where} holds vectors of another model or setting: {name} is {mine!r} there "
                    f"and {theirs!r} here. Use {use}"
                    f"{' with --flip' if self.flip else ''}, or build a new index"
                )


@dataclass(frozen=True)
class Record:
    """One stored image or tracklet.

    Attributes:
        path: identifies it.
        person: name or number of the person, "" where unknown.
        camera: its number, None where unknown.
        time: seconds since 1970, None where unknown; such records never expire.
    """

    path: str
    person: str = ""
    camera: int | None = None
    time: float | None = None


@dataclass(frozen=True)
class Filter:
    """Which records a search may find; None: no condition. Records without the value that a
    condition is about are not found.

    Attributes:
        cameras: their numbers.
        people: their names or numbers, as `Record.person`.
        after, before: seconds since 1970; after <= time < before.
    """

    cameras: frozenset[int] | None = None
    people: frozenset[str] | None = None
    after: float | None = None
    before: float | None = None

    def __bool__(self) -> bool:
        return self != Filter()


ANY = Filter()


@dataclass(frozen=True)
class Hit:
    """One place of a ranked list; `distance` is 1 - cos."""

    record: Record
    distance: float

    def to_dict(self) -> dict[str, Any]:
        """As in JSON: path, person, camera, time and distance."""
        return {**dataclasses.asdict(self.record), "distance": self.distance}


class Gallery(Protocol):
    """An index: a directory on disk, or a collection of a Qdrant server.

    Attributes:
        name: for messages.
        header: of its vectors.
    """

    name: str
    header: Header

    def __len__(self) -> int: ...

    def known(self, paths: Iterable[str]) -> set[str]:
        """Those of `paths` that are stored."""
        ...

    def add(self, vectors: NDArray[np.float32], records: Sequence[Record]) -> int:
        """Stores vectors float32 [N, D]; they need not be L2-normalised. Paths that are already
        stored are skipped; returns the number of new ones. After an interruption, the same call
        completes what was begun."""
        ...

    def remove(self, paths: Iterable[str]) -> int:
        """Removes records by path; returns how many there were."""
        ...

    def expire(self, before: float) -> int:
        """Removes the records with a time before `before`; returns how many."""
        ...

    def count(self, condition: Filter = ANY) -> int:
        """The number of records that meet a condition."""
        ...

    def find(self, condition: Filter = ANY, *, limit: int | None = None) -> list[Record]:
        """The records that meet a condition, by path, or as the server gives them; at most
        `limit`."""
        ...

    def search(
        self, queries: NDArray[np.float32], n: int, condition: Filter = ANY
    ) -> list[list[Hit]]:
        """The nearest records of every query [Q, D], nearest first, at most n."""
        ...

    def info(self) -> dict[str, Any]:
        """What `reidkit index info` shows."""
        ...


def new_rows(records: Sequence[Record], known: set[str]) -> list[int]:
    """Rows of the records to add: the first of each path that is not known."""
    rows: dict[str, int] = {}
    for row, record in enumerate(records):
        if record.path not in known:
            rows.setdefault(record.path, row)
    return list(rows.values())


def check_vectors(
    vectors: NDArray[np.float32], header: Header, *, name: str
) -> NDArray[np.float32]:
    """The vectors [N, D] L2-normalised.

    Raises:
        DataError: they have another length, or there are NaN, infinite or zero vectors.
    """
    if len(vectors) == 0:
        return np.empty((0, header.dimension), np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != header.dimension:
        raise DataError(
            f"{name} holds vectors of length {header.dimension}, found {list(vectors.shape[1:])}"
        )
    rows = np.ascontiguousarray(vectors, np.float32)
    checked_norms(rows, "vectors")
    return unit_rows(rows)


def parse_time(text: str, *, where: str) -> float:
    """Seconds since 1970 of an ISO 8601 date or time (UTC unless it states its zone), or of a
    number of seconds.

    Raises:
        DataError: it is neither.
    """
    try:
        return float(text) if text.strip().replace(".", "", 1).isdecimal() else _iso(text)
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{where}: time {text!r}, expected one such as 2026-05-17T09:30 or seconds since 1970"
        ) from error


def _iso(text: str) -> float:
    time = datetime.fromisoformat(text.strip())
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
