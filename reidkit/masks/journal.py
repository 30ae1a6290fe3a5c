"""What an unfinished mask file consists of: `<path>.journal`, of further processes
`<path>.journal.1` and so on.

A journal is a line that identifies the task, then records. Each record has the number of its image,
so that any number of processes may resume what another number began.
"""

# H W of an image

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from reidkit.errors import MaskError
from reidkit.files import check_regular
from reidkit.masks.store import MAX_CELLS

SYNC_SECONDS = 5.0
"""Between two syncs to disk: the most that a power cut costs. A kill costs no finished mask."""

_HEAD = struct.Struct("<IHHI")  # row, height, width, bytes
_CHECKSUM = struct.Struct("<I")  # crc32 of head and bytes
_NOTE = 2**32 - 1  # in place of the row
_MAX_BYTES = 2 * MAX_CELLS


class Record(NamedTuple):
    """One finished mask.

    Attributes:
        row: number of its image in the task's order.
        size: (height, width) of the image.
        data: the stored map, deflated.
    """

    row: int
    size: tuple[int, int]
    data: bytes


def journal_path(path: Path, rank: int = 0) -> Path:
    """The journal of the process `rank` for the mask file `path`."""
    return path.with_name(path.name + ".journal" + (f".{rank}" if rank else ""))


def journal_paths(path: Path) -> list[Path]:
    """All journals for the mask file `path`, the main process's first."""
    first = journal_path(path)
    others = (
        file
        for file in path.parent.iterdir()
        if file.stem == first.name and file.suffix[1:].isdigit()
    )
    return [*([first] if first.exists() else []), *sorted(others)]


def remove_journals(path: Path) -> None:
    """Removes all journals, the main process's last."""
    for journal in reversed(journal_paths(path)):
        journal.unlink(missing_ok=True)


def read_records(path: Path, task: bytes) -> list[Record]:
    """The whole records of a journal; none if it is of another task.

    Args:
        task: the line that identifies it.
    """
    check_regular(path, MaskError)
    with path.open("rb") as file:
        if file.readline(len(task)) != task:
            return []
        return [record for record in _records(file) if isinstance(record, Record)]


class Journal:
    """A journal that one process appends to, open from the first byte.

    What does not belong to the task, and a last record that a kill cut short, are removed.

    Attributes:
        rows: numbers of the images whose masks it holds.
        note: text of the task, or None.
        restarted: whether it held another task.
    """

    def __init__(self, file: BinaryIO, task: bytes) -> None:
        self.file = file
        self.rows: set[int] = set()
        self.note: str | None = None
        found = file.readline(len(task))
        self.restarted = found not in (task, b"")
        if found == task:
            end = file.tell()
            for record in _records(file):
                end = file.tell()
                if isinstance(record, Record):
                    self.rows.add(record.row)
                else:
                    self.note = record
            file.seek(end)
            file.truncate()
        else:
            file.seek(0)
            file.truncate()
            file.write(task)
        self._synced = time.monotonic()

    def append(self, record: Record) -> None:
        """Adds a mask."""
        self._write(*record)
        self.rows.add(record.row)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def annotate(self, note: str) -> None:
        """Adds the text of the task."""
        self._write(_NOTE, (0, 0), note.encode())
        self.note = note
        self.sync()

    def sync(self) -> None:
        """Writes everything to disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self._synced = time.monotonic()

    def _write(self, row: int, size: tuple[int, int], data: bytes) -> None:
        head = _HEAD.pack(row, *size, len(data))
        self.file.write(head + _CHECKSUM.pack(zlib.crc32(head + data)) + data)
        self.file.flush()


def _records(file: BinaryIO) -> Iterator[Record | str]:
    """All whole records, and the note as text, from the current position."""
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        row, height, width, length = _HEAD.unpack(head)
        checksum = file.read(_CHECKSUM.size)
        data = file.read(min(length, _MAX_BYTES))
        if len(data) != length or checksum != _CHECKSUM.pack(zlib.crc32(head + data)):
            return
        yield data.decode(errors="replace") if row == _NOTE else Record(row, (height, width), data)
