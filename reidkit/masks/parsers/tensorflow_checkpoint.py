"""Variables of a TensorFlow checkpoint (format V2), read without TensorFlow.

A checkpoint is PREFIX.index, a table of the variables, and PREFIX.data-00000-of-00001, their raw
numbers. The table has the format of LevelDB (doc/table_format.md), its values are the messages of
`tensor_bundle.proto`. The files come from strangers: every offset and length is checked against
the size of the file, and every checksum is verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import CheckpointError
from reidkit.files import check_regular
from reidkit.masks.parsers.crc32c import masked_crc32c

FOOTER = 48
MAGIC = 0xDB4775248B80FB57
MAX_INDEX = 16 * 2**20
"""Bytes; the index of 1,200 variables has about 100 KB."""
MAX_NAME = 1024
"""Bytes of a variable's name."""
FLOAT32 = 1
TYPES = {1: "float32", 2: "float64", 3: "int32", 7: "string", 9: "int64", 14: "bfloat16"}
"""Of tensorflow/core/framework/types.proto."""


@dataclass(frozen=True)
class Variable:
    """Where a variable is, and what it is.

    Attributes:
        dtype: as in types.proto; only float32 can be read.
        shard: number of the data file.
        offset, size: bytes in the data file.
        crc: masked CRC-32C of these bytes.
        is_sliced: stored in several pieces, as partitioned variables are; cannot be read.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    is_sliced: bool


class TensorFlowCheckpoint:
    """The variables of a checkpoint by name; `read` loads one of them.

    Args:
        path: a folder with one checkpoint, its .index file, or the prefix of its files.

    Raises:
        CheckpointError: if there is no checkpoint, or its index is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.prefix = find_prefix(path)
        self.index = self.prefix.with_name(self.prefix.name + ".index")
        entries = dict(_Table(self.index).entries())
        self.num_shards = self._num_shards(entries.pop(b"", None))
        self.variables = {
            name.decode(errors="replace"): self._variable(name, value)
            for name, value in entries.items()
        }

    def read(self, name: str) -> NDArray[np.float32]:
        """The variable `name`, in its own shape.

        Raises:
            CheckpointError: if it is not float32, or its data is missing, truncated or damaged.
        """
        variable = self.variables[name]
        file = self.prefix.with_name(
            f"{self.prefix.name}.data-{variable.shard:05d}-of-{self.num_shards:05d}"
        )
        if variable.dtype != FLOAT32 or variable.is_sliced:
            kind = TYPES.get(variable.dtype, f"type {variable.dtype}")
            raise CheckpointError(
                f"{self.index}: {name} is {kind}{' in slices' * variable.is_sliced}, expected"
                " float32 in one piece"
            )
        expected = 4
        for side in variable.shape:
            expected *= side
        if variable.size != expected:
            raise CheckpointError(
                f"{self.index} is damaged: {name} has {variable.size:,} bytes for shape"
                f" {list(variable.shape)}, expected {expected:,}. Copy the checkpoint again"
            )
        end = variable.offset + variable.size
        if not file.is_file():
            raise CheckpointError(f"{file} is missing; it belongs beside {self.index.name}")
        if (found := file.stat().st_size) < end:
            raise CheckpointError(
                f"{file} is truncated: it has {found:,} bytes, and {name} ends at byte {end:,}."
                " Copy the file again"
            )
        data = np.fromfile(file, np.uint8, count=variable.size, offset=variable.offset)
        if masked_crc32c(data) != variable.crc:
            raise CheckpointError(
                f"{file} is damaged: {name} (bytes {variable.offset:,} to {end:,}) has a wrong"
                " checksum. Copy the file again"
            )
        values: NDArray[np.float32] = data.view("<f4").reshape(variable.shape)
        return values

    def _num_shards(self, header: bytes | None) -> int:
        if header is None:
            _damaged(self.index, "it has no header")
        fields = _Message(header, self.index)
        if fields.integer(2) != 0:
            raise CheckpointError(f"{self.index}: written on a big-endian machine; not supported")
        return fields.integer(1)

    def _variable(self, name: bytes, value: bytes) -> Variable:
        entry = _Message(value, self.index)
        shape = _Message(entry.content(2), self.index)
        sides = tuple(_Message(side, self.index).integer(1) for side in shape.contents(2))
        variable = Variable(
            dtype=entry.integer(1),
            shape=sides,
            shard=entry.integer(3),
            offset=entry.integer(4),
            size=entry.integer(5),
            crc=entry.integer(6),
            is_sliced=bool(entry.contents(7)),
        )
        if not 0 <= variable.shard < self.num_shards <= 99999:
            shown = name.decode(errors="replace")
            _damaged(self.index, f"{shown} is in data file {variable.shard} of {self.num_shards}")
        return variable


def find_prefix(path: Path) -> Path:
    """The common prefix of a checkpoint's files, from a folder, the .index file or the prefix.

    Raises:
        CheckpointError: if there is no checkpoint, or more than one and no file `checkpoint` that
            names the newest.
    """
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) > 1 and (named := _named_in(path / "checkpoint")):
            found = [file for file in found if file.name == f"{named}.index"]
        if len(found) != 1:
            listed = ", ".join(file.name for file in sorted(path.glob("*.index"))) or "none"
            raise CheckpointError(
                f"{path}: expected one TensorFlow checkpoint, found the .index files: {listed}."
                " Pass the .index file"
            )
        path = found[0]
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name))
    index = prefix.with_name(prefix.name + ".index")
    check_regular(index, CheckpointError)
    if not index.is_file():
        raise CheckpointError(
            f"{index}: no such file, expected a TensorFlow checkpoint: the folder or the prefix of"
            " its files NAME.index and NAME.data-00000-of-00001"
        )
    return prefix


def _named_in(file: Path) -> str | None:
    """File name of the newest checkpoint, from the text file that lists a folder's."""
    if not file.is_file() or file.stat().st_size > 2**20:
        return None
    text = file.read_text("utf-8", errors="replace")
    found = re.search(r'^model_checkpoint_path: "([^"]*)"', text, re.MULTILINE)
    return re.split(r"[\\/]", found[1])[-1] if found else None


class _Table:
    """A LevelDB table in a file: pairs (key, value) in blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        if not FOOTER <= size <= MAX_INDEX:
            _damaged(path, f"it has {size:,} bytes, expected {FOOTER} to {MAX_INDEX:,}")
        self.data = path.read_bytes()

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        footer = _Cursor(self.data[-FOOTER:], self.path)
        if int.from_bytes(self.data[-8:], "little") != MAGIC:
            _damaged(self.path, "it does not end like a table of TensorFlow's format V2")
        total = 0
        for _ in self._block(footer.varint(), footer.varint()):
            pass  # the metaindex says nothing about variables; its checksum must be right
        for _, value in self._block(footer.varint(), footer.varint()):
            handle = _Cursor(value, self.path)
            offset, size = handle.varint(), handle.varint()
            total += size
            if total > len(self.data):  # no two blocks overlap
                _damaged(self.path, "its blocks are larger than the file")
            yield from self._block(offset, size)

    def _block(self, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        end = offset + size
        if end + 5 > len(self.data):
            _damaged(self.path, f"a block ends at byte {end + 5:,} of {len(self.data):,}")
        compression, stored = self.data[end], self.data[end + 1 : end + 5]
        if masked_crc32c(self.data[offset : end + 1]) != int.from_bytes(stored, "little"):
            _damaged(self.path, f"the block at byte {offset:,} has a wrong checksum")
        if compression != 0:
            kind = "Snappy" if compression == 1 else f"type {compression}"
            raise CheckpointError(
                f"{self.path}: its blocks are compressed ({kind}); TensorFlow's Saver writes them"
                " uncompressed. Save the checkpoint again with TensorFlow"
            )
        block = self.data[offset:end]
        restarts = int.from_bytes(block[-4:], "little")
        if 4 * (restarts + 1) > size:
            _damaged(self.path, f"the block at byte {offset:,} has {restarts:,} restart points")
        cursor = _Cursor(block[: size - 4 * (restarts + 1)], self.path)
        key = b""
        while not cursor.at_end:
            shared, unshared, length = cursor.varint(), cursor.varint(), cursor.varint()
            if shared > len(key) or shared + unshared > MAX_NAME:
                _damaged(self.path, f"the block at byte {offset:,} has an impossible name")
            key = key[:shared] + cursor.take(unshared)
            yield key, cursor.take(length)


class _Message:
    """Fields of a protobuf message: number -> values, integers or bytes."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.path = path
        self.fields: dict[int, list[int | bytes]] = {}
        cursor = _Cursor(data, path)
        while not cursor.at_end:
            tag = cursor.varint()
            self.fields.setdefault(tag >> 3, []).append(self._value(cursor, tag & 7))

    def integer(self, field: int) -> int:
        """The last value of an integer field; 0 where it is absent."""
        value = self.fields.get(field, [0])[-1]
        if isinstance(value, bytes):
            _damaged(self.path, f"field {field} of a message is not a number")
        return value

    def content(self, field: int) -> bytes:
        """The last value of a field of bytes; empty where it is absent."""
        return (self.contents(field) or [b""])[-1]

    def contents(self, field: int) -> list[bytes]:
        """All values of a repeated field of bytes."""
        values = [value for value in self.fields.get(field, []) if isinstance(value, bytes)]
        if len(values) != len(self.fields.get(field, [])):
            _damaged(self.path, f"field {field} of a message is a number")
        return values

    def _value(self, cursor: _Cursor, wire_type: int) -> int | bytes:
        if wire_type == 0:
            return cursor.varint()
        if wire_type == 2:
            return cursor.take(cursor.varint())
        if wire_type in (1, 5):
            return int.from_bytes(cursor.take(8 if wire_type == 1 else 4), "little")
        _damaged(self.path, f"a message has a field of wire type {wire_type}")


class _Cursor:
    """Reads bytes from front to back, never beyond their end."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data = data
        self.path = path
        self.position = 0

    @property
    def at_end(self) -> bool:
        return self.position == len(self.data)

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.data):
            _damaged(self.path, f"{length:,} bytes expected, {end - len(self.data):,} are missing")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def varint(self) -> int:
        """An integer below 2^64, 7 bits per byte, the lowest first."""
        value = 0
        for shift in range(0, 64, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1)
        _damaged(self.path, "it has an integer of more than 64 bits")


def _damaged(path: Path, found: str) -> NoReturn:
    raise CheckpointError(
        f"{path} is damaged, or no index of a TensorFlow checkpoint: {found}. Copy the file again"
    )
