"""An index in a directory: vectors in one memory-mapped file, the rest in an SQLite database.

    people.index/
        records.sqlite   header; path, person, camera and time of every slot; the removed slots
        vectors-1.f32    unit vectors, little-endian float32 [slots, D]

The database decides what exists: vectors are appended and synced first, and belong to the index
from the moment that its transaction is committed. A process that is killed before leaves bytes
beyond the last slot, which the next addition overwrites. Compaction writes vectors-2.f32 and
switches to it in a transaction.
"""

# N vectors, Q queries, D embedding; a slot is a row of the vector file

from __future__ import annotations

import contextlib
import mmap
import os
import re
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, ReidkitError
from reidkit.files import atomic_folder, check_regular, exclusive_lock, os_error_text
from reidkit.index.exact import search_exact
from reidkit.index.records import (
    ANY,
    DATABASE,
    Filter,
    Header,
    Hit,
    Record,
    check_vectors,
    new_rows,
)

REBUILD = "Build the index again: reidkit index build"
COMPACT_ABOVE = 0.25
"""Share of removed slots above which the vector file is rewritten."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE records (
    slot INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    person TEXT NOT NULL,
    camera INTEGER,
    time REAL
) STRICT;
CREATE INDEX records_by_time ON records (time);
CREATE INDEX records_by_camera ON records (camera);
CREATE TABLE removed (slot INTEGER PRIMARY KEY) STRICT;
"""
_SQL_VALUES = 30_000
"""Values in one statement; SQLite accepts 32,766."""
_RESIDENT_BYTES = 1 << 30
"""A larger vector file is not kept mapped into memory while it is searched."""
_COPY_ROWS = 1 << 14
_MAX_COSINE = 1.01
"""Above, a vector is damaged."""
_TIMEOUT = 600
"""Seconds that a change waits for searches."""


class IndexDirectory:
    """A `Gallery` on disk. Any number of processes may search; one at a time may change it.

    Raises:
        DataError: on opening, if the directory holds no index, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        if not (path / DATABASE).is_file():
            raise DataError(
                f"no index in {path}. Build one: reidkit index build {path} IMAGES --model MODEL"
            )
        with self._errors():
            database = path / DATABASE
            # One thread at a time uses it, but any may be the one that drops and closes it.
            self._database = sqlite3.connect(
                database, isolation_level=None, timeout=_TIMEOUT, check_same_thread=False
            )
            weakref.finalize(self, self._database.close)
            self._database.execute("PRAGMA trusted_schema = OFF")
            self._database.execute("PRAGMA synchronous = FULL")
            self.header = Header.from_json(self._meta("header"), where=self.name)
        self._vectors: tuple[str, int, NDArray[np.float32]] | None = None

    @classmethod
    def create(cls, path: Path, header: Header) -> IndexDirectory:
        """A new, empty index.

        Raises:
            DataError: `path` exists and is not an empty folder.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(
                f"{path} exists already. Add to an index: reidkit index add {path} IMAGES"
            )
        try:
            with atomic_folder(path) as partial:
                (partial / "vectors-1.f32").touch()
                with contextlib.closing(sqlite3.connect(partial / DATABASE)) as database:
                    database.executescript(_SCHEMA)
                    values = {"header": header.to_json(), "vectors": "vectors-1.f32", "slots": "0"}
                    with database:
                        database.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
        except sqlite3.Error as error:
            raise ReidkitError(f"cannot write {path}: {_cause(error)}") from error
        return cls(path)

    def __len__(self) -> int:
        with self._errors():
            count = self._database.execute("SELECT count(*) FROM records").fetchone()[0]
        return int(count)

    def known(self, paths: Iterable[str]) -> set[str]:
        with self._errors():
            rows = self._select("SELECT path FROM records WHERE path IN", list(paths))
            return {path for (path,) in rows}

    def add(self, vectors: NDArray[np.float32], records: Sequence[Record]) -> int:
        unit = check_vectors(vectors, self.header, name=self.name)
        with self._change():
            chosen = new_rows(records, self.known(record.path for record in records))
            file, slots = self.file_and_slots()
            self._append(self.path / file, slots, unit[chosen])
            self._database.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                (
                    (slots + k, r.path, r.person, r.camera, r.time)
                    for k, r in enumerate(records[row] for row in chosen)
                ),
            )
            self._set_meta("slots", str(slots + len(chosen)))
        return len(chosen)

    def remove(self, paths: Iterable[str]) -> int:
        with self._change():
            found = self._select("SELECT slot FROM records WHERE path IN", list(paths))
            return self._remove_slots([slot for (slot,) in found])

    def expire(self, before: float) -> int:
        with self._change():
            found = self._database.execute("SELECT slot FROM records WHERE time < ?", (before,))
            return self._remove_slots([slot for (slot,) in found])

    def search(
        self, queries: NDArray[np.float32], n: int, condition: Filter = ANY
    ) -> list[list[Hit]]:
        unit = check_vectors(queries, self.header, name=self.name)
        with self.snapshot():
            return self.hits(*self.search_unit(unit, n, condition))

    def search_unit(
        self, unit: NDArray[np.float32], n: int, condition: Filter
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Slots and cosines [Q, n] for unit vectors, as `search_exact`, within a snapshot."""
        return self.nearest(unit, n, self.allowed(condition))

    def nearest(
        self,
        unit: NDArray[np.float32],
        n: int,
        allowed: NDArray[np.bool_] | None,
        *,
        first: int = 0,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Exact search among the slots from `first` on, as `search_exact`."""
        vectors = self.vectors()
        read = self._block_reader(vectors)
        with np.errstate(over="ignore", invalid="ignore"):  # of damaged vectors, see below
            slots, cosines = search_exact(
                unit,
                lambda start, stop: read(first + start, first + stop),
                len(vectors) - first,
                n,
                allowed=None if allowed is None else allowed[first:],
            )
        if not (np.abs(cosines[cosines != -np.inf]) < _MAX_COSINE).all():
            raise DataError(f"{self.name} contains vectors that are not of length 1. {REBUILD}")
        slots[slots >= 0] += first
        return slots, cosines

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read within belongs together; processes that change the index wait."""
        with self._errors():
            self._database.execute("BEGIN")
            try:
                yield
            finally:
                self._database.execute("COMMIT")

    def vectors(self) -> NDArray[np.float32]:
        """All slots, memory-mapped: unit vectors float32 [slots, D], removed ones included."""
        file, slots = self.file_and_slots()
        if self._vectors is None or self._vectors[:2] != (file, slots):
            shape = (slots, self.header.dimension)
            try:
                mapped = (
                    np.memmap(self.path / file, "<f4", "r", shape=shape)
                    if slots
                    else np.empty(shape, np.float32)
                )
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{self.path / file} lacks some of its {slots:,} vectors. {REBUILD}"
                ) from error
            self._vectors = (file, slots, mapped)
        return self._vectors[2]

    def allowed(self, condition: Filter = ANY) -> NDArray[np.bool_] | None:
        """bool [slots]: what a search may find; None: everything."""
        _, slots = self.file_and_slots()
        if condition:
            return self._marks(self._slots_within(condition), slots)
        removed = [slot for (slot,) in self._database.execute("SELECT slot FROM removed")]
        if not removed:
            return None
        return ~self._marks(removed, slots)

    def _marks(self, chosen: list[int], slots: int) -> NDArray[np.bool_]:
        """bool [slots]: True for the chosen ones."""
        if not all(isinstance(slot, int) and 0 <= slot < slots for slot in chosen):
            raise self._damaged(f"it has slots beyond its {slots:,}")
        marks = np.zeros(slots, np.bool_)
        marks[chosen] = True
        return marks

    def hits(self, slots: NDArray[np.int64], cosines: NDArray[np.float32]) -> list[list[Hit]]:
        """The records of slots [Q, n] with their distances; places of slot -1 or of a cosine of
        -inf are empty."""
        found = sorted({int(slot) for slot in np.unique(slots) if slot >= 0})
        query = "SELECT slot, path, person, camera, time FROM records WHERE slot IN"
        records = {slot: self._record(*rest) for slot, *rest in self._select(query, found)}
        if len(records) < len(found):
            raise self._damaged(f"it lacks the records of {len(found) - len(records)} vectors")
        return [
            [
                Hit(records[int(slot)], float(1 - cosine))
                for slot, cosine in zip(*row, strict=True)
                if slot >= 0 and cosine > -np.inf
            ]
            for row in zip(slots, cosines, strict=True)
        ]

    def _record(self, path: Any, person: Any, camera: Any, time: Any) -> Record:
        texts = isinstance(path, str) and isinstance(person, str)
        if not (texts and isinstance(camera, int | None) and isinstance(time, float | None)):
            raise self._damaged(f"the record of {path!r} has values of other types")
        return Record(path, person, camera, time)

    def records(self) -> Iterator[tuple[int, Record]]:
        """(slot, record) of everything stored, in order of slots."""
        with self._errors():
            query = "SELECT slot, path, person, camera, time FROM records ORDER BY slot"
            for slot, *rest in self._database.execute(query):
                yield slot, self._record(*rest)

    def count(self, condition: Filter = ANY) -> int:
        where, values = _where(condition)
        with self._errors():
            query = f"SELECT count(*) FROM records WHERE {where}"
            return int(self._database.execute(query, values).fetchone()[0])

    def find(self, condition: Filter = ANY, *, limit: int | None = None) -> list[Record]:
        where, values = _where(condition)
        query = (
            f"SELECT path, person, camera, time FROM records WHERE {where} ORDER BY path LIMIT ?"
        )
        with self._errors():
            rows = self._database.execute(query, [*values, -1 if limit is None else limit])
            return [self._record(*row) for row in rows]

    def info(self) -> dict[str, Any]:
        with self._errors():
            _, slots = self.file_and_slots()
            row = self._database.execute(
                "SELECT min(time), max(time), count(DISTINCT camera), count(DISTINCT "
                "nullif(person, '')) FROM records"
            ).fetchone()
        return {
            "index": self.name,
            "vectors": len(self),
            "removed": slots - len(self),
            "dimension": self.header.dimension,
            "bytes": sum(p.stat().st_size for p in self.path.iterdir() if p.is_file()),
            "model": self.header.model,
            "model_sha256": self.header.model_sha256,
            "flip": self.header.flip,
            "oldest": row[0],
            "newest": row[1],
            "cameras": row[2],
            "people": row[3],
        }

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # Python's module itself raises an OperationalError without a code for text that is not
            # UTF-8; those of SQLite are about the disk, locks and permissions.
            if isinstance(error, sqlite3.OperationalError) and hasattr(error, "sqlite_errorcode"):
                raise ReidkitError(f"{self.name}: {_cause(error)}") from error
            raise DataError(f"{self.path / DATABASE} is damaged ({error}). {REBUILD}") from error

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction of the only process that changes the index."""
        with exclusive_lock(self.path), self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite itself ends it when the disk is full
                    self._database.execute("ROLLBACK")
                raise
            self._remove_old_files()

    def meta(self, key: str) -> str | None:
        """A value of the database's own table."""
        row = self._database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Stores a value in the database's own table."""
        with self._change():
            self._set_meta(key, value)

    def _meta(self, key: str) -> str:
        value = self.meta(key)
        if value is None:
            raise DataError(f"{self.path / DATABASE} has no {key}. {REBUILD}")
        return value

    def _set_meta(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def file_and_slots(self) -> tuple[str, int]:
        """Name of the vector file, and the number of its slots."""
        file, slots = self._meta("vectors"), self._meta("slots")
        known_name = re.fullmatch(r"vectors-\d{1,9}\.f32", file)
        if known_name is None or not re.fullmatch(r"\d{1,18}", slots):
            raise self._damaged("it has no number of slots, or no name of a vector file")
        check_regular(self.path / file, DataError)
        size = (self.path / file).stat().st_size if (self.path / file).is_file() else 0
        if 4 * int(slots) * self.header.dimension > size:
            raise DataError(
                f"{self.path / file} lacks some of its {int(slots):,} vectors. {REBUILD}"
            )
        return file, int(slots)

    def _damaged(self, found: str) -> DataError:
        return DataError(f"{self.path / DATABASE} is damaged ({found}). {REBUILD}")

    def _append(self, file: Path, slots: int, unit: NDArray[np.float32]) -> None:
        try:
            with file.open("r+b") as stream:
                size = 4 * slots * self.header.dimension
                if stream.seek(0, os.SEEK_END) < size:
                    raise DataError(f"{file} is shorter than its {slots:,} vectors. {REBUILD}")
                stream.seek(size)  # over the vectors of a process that was killed
                stream.write(np.ascontiguousarray(unit, "<f4").data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise ReidkitError(f"cannot write {file}: {os_error_text(error)}") from error

    def _remove_slots(self, slots: list[int]) -> int:
        pairs = [(slot,) for slot in slots]
        self._database.executemany("DELETE FROM records WHERE slot = ?", pairs)
        self._database.executemany("INSERT INTO removed VALUES (?)", pairs)
        _, total = self.file_and_slots()
        removed = self._database.execute("SELECT count(*) FROM removed").fetchone()[0]
        if removed > COMPACT_ABOVE * total:
            self._compact()
        return len(slots)

    def _compact(self) -> int:
        """Within a transaction: a new vector file without removed slots, which are returned."""
        file, slots = self.file_and_slots()
        allowed = self.allowed()
        if allowed is None:
            return 0
        kept = np.flatnonzero(allowed)
        new = f"vectors-{int(file.removeprefix('vectors-').removesuffix('.f32')) + 1}.f32"
        vectors = self.vectors()
        try:
            with (self.path / new).open("wb") as stream:
                for start in range(0, len(kept), _COPY_ROWS):
                    stream.write(vectors[kept[start : start + _COPY_ROWS]].data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise ReidkitError(f"cannot write {self.path / new}: {os_error_text(error)}") from error
        # ascending, so that a new number is never one that is still in use
        self._database.executemany(
            "UPDATE records SET slot = ? WHERE slot = ?",
            ((k, int(slot)) for k, slot in enumerate(kept) if k != slot),
        )
        self._database.execute("DELETE FROM removed")
        self._set_meta("vectors", new)
        self._set_meta("slots", str(len(kept)))
        return slots - len(kept)

    def _remove_old_files(self) -> None:
        """Vector files that a compaction has replaced."""
        current, _ = self.file_and_slots()
        for file in self.path.glob("vectors-*.f32"):
            if file.name != current:
                file.unlink(missing_ok=True)

    def _select(self, query: str, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Rows of `query`, which ends in IN, for any number of values."""
        for start in range(0, len(values), _SQL_VALUES):
            part = values[start : start + _SQL_VALUES]
            marks = ",".join("?" * len(part))
            yield from self._database.execute(f"{query} ({marks})", part)

    def _slots_within(self, condition: Filter) -> list[int]:
        where, values = _where(condition)
        query = f"SELECT slot FROM records WHERE {where}"
        return [slot for (slot,) in self._database.execute(query, values)]

    def _block_reader(self, vectors: NDArray[np.float32]) -> Any:
        """Blocks of the mapped vectors; those of a large file are given back after use."""
        mapped = getattr(vectors, "_mmap", None)
        if mapped is None or vectors.nbytes <= _RESIDENT_BYTES:
            return lambda start, stop: vectors[start:stop]
        row = vectors.strides[0]

        def read(start: int, stop: int) -> NDArray[np.float32]:
            if start:
                used = start * row // mmap.PAGESIZE * mmap.PAGESIZE
                mapped.madvise(mmap.MADV_DONTNEED, 0, used)
            return vectors[start:stop]

        return read


def _where(condition: Filter) -> tuple[str, list[float | str]]:
    """A condition in SQL, and the values of its placeholders."""
    clauses: list[str] = ["1"]
    values: list[float | str] = []
    for column, wanted in (("camera", condition.cameras), ("person", condition.people)):
        if wanted is not None:
            clauses.append(f"{column} IN ({','.join('?' * len(wanted))})")
            values += sorted(wanted)
    if condition.after is not None:
        clauses.append("time >= ?")
        values.append(condition.after)
    if condition.before is not None:
        clauses.append("time < ?")
        values.append(condition.before)
    return " AND ".join(clauses), values


def _cause(error: sqlite3.Error) -> str:
    """What SQLite reports, and what to do."""
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return "No space left on device. Free some space, and run the same command again"
    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:  # without the extended code
        return f"Read-only file system or file ({error}). Change its permissions"
    return f"{error}. Check free space and permissions, and run the same command again"
