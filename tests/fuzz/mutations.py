"""Changes to sound input: of bytes, of documents (JSON, TOML) and of tables (CSV).

All of them are functions of a `random.Random`, so that an input is known by its seed and number.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

Files = dict[str, bytes]
"""The files of an input: path below a folder -> content."""

MAGIC = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**33)
MAGIC += (2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
"""Integers around the limits of sizes and offsets."""

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 255, 2**31, -(2**63), 2**63, 10**30, 10**400),
    *(0.0, -0.5, 1e-310, 1e308, math.nan, math.inf, -math.inf),
    *("", "\0", "x" * 300, "é\u0301\u202e", "../../etc/passwd", "/", "²", "१२", "nan", "<script>"),
    *([], {}, [[]], [None], [1, "a"], [1e400, -1], {"": ""}, {"a": {"b": None}}, [0] * 100),
)
"""Values that a document may have in place of any other."""


def mutate_bytes(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to four changes: bits, bytes, magic integers, and slices that are cut out, repeated,
    shuffled or taken from `others`."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        _BYTE_CHANGES[rng.randrange(len(_BYTE_CHANGES))](rng, changed, others or [data])
    return bytes(changed)


def _position(rng: Random, data: bytearray) -> int:
    """Anywhere; headers and trailers, which are at the ends, more often than the rest."""
    size = len(data)
    if rng.random() < 0.5:
        return rng.randrange(size + 1)
    near = rng.randrange(min(size, 128) + 1)
    return near if rng.random() < 0.6 else size - near


def _slice(rng: Random, data: bytearray) -> slice:
    start = _position(rng, data)
    return slice(start, start + rng.choice((1, 2, 4, 8, 16, 64, 512, len(data) // 2 + 1)))


def _flip_bit(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[min(_position(rng, data), len(data) - 1)] ^= 1 << rng.randrange(8)


def _set_byte(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[min(_position(rng, data), len(data) - 1)] = rng.choice((0, 255, rng.randrange(256)))


def _truncate(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[_position(rng, data) :]


def _delete(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[_slice(rng, data)]


def _repeat(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    part = data[_slice(rng, data)]
    at = _position(rng, data)
    data[at:at] = part * rng.choice((1, 1, 2, 50))


def _splice(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = bytearray(rng.choice(others))
    at = _position(rng, data)
    data[at : rng.choice((at, at + 8, len(data)))] = other[_slice(rng, other)]


def _shuffle(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    where = _slice(rng, data)
    part = list(data[where])
    rng.shuffle(part)
    data[where] = bytes(part)


def _magic(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    value = rng.choice(MAGIC)
    if rng.random() < 0.25:
        number = str(value).encode()
    else:
        size = rng.choice((1, 2, 4, 8))
        order = rng.choice(("little", "big"))
        number = (value % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
    at = _position(rng, data)
    data[at : at + rng.choice((0, len(number)))] = number


_BYTE_CHANGES: tuple[Callable[[Random, bytearray, Sequence[bytes]], None], ...] = (
    *(_flip_bit, _set_byte, _truncate, _delete, _repeat, _splice, _shuffle, _magic, _magic),
)


def mutate_document(rng: Random, document: Any, hostile: Sequence[Any] = HOSTILE) -> Any:
    """A copy of a JSON document with one to three changes: a value replaced by a hostile one or by
    another of the document's, a key removed, added or renamed, an entry repeated."""
    changed = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2, 3))):
        changed = _change_document(rng, changed, hostile)
    return changed


def _change_document(rng: Random, document: Any, hostile: Sequence[Any]) -> Any:
    places = list(_places(document))
    if not places or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(hostile))
    parent, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.6:
        parent[key] = copy.deepcopy(rng.choice(hostile))
    elif kind < 0.75:
        other, place = rng.choice(places)
        parent[key] = copy.deepcopy(other[place])
    elif kind < 0.85:
        del parent[key]
    elif isinstance(parent, dict):
        parent[rng.choice(("", "é", "a.b", "format", "size", key + "x"))] = copy.deepcopy(
            rng.choice((parent[key], rng.choice(hostile)))
        )
    else:
        parent[key:key] = parent[key : key + 1] * rng.choice((1, 1, 3, 100))
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting and len(found) < 5000:
        container = waiting.pop()
        keys: Any = ()
        if isinstance(container, dict):
            keys = list(container)
        elif isinstance(container, list):
            keys = range(len(container))
        for key in keys:
            found.append((container, key))
            waiting.append(container[key])
    return found


def mutate_json(rng: Random, text: bytes) -> bytes:
    """JSON that is another document, or text that is no longer JSON."""
    kind = rng.random()
    if kind < 0.05:
        depth = rng.choice((10, 1_000, 100_000))
        return rng.choice((b"[", b'{"a":')) * depth + b"1" + rng.choice((b"", b"]" * depth))
    if kind < 0.8:
        return json.dumps(mutate_document(rng, json.loads(text))).encode()
    return mutate_bytes(rng, text)


def mutate_toml(rng: Random, text: bytes) -> bytes:
    """TOML that is another document, or text that is no longer TOML."""
    import tomllib

    import tomli_w

    kind = rng.random()
    if kind < 0.05:
        depth = rng.choice((10, 500, 100_000))
        return b"\nkey = " + b"[" * depth + rng.choice((b"", b"]" * depth))
    if kind < 0.75:
        document = mutate_document(rng, tomllib.loads(text.decode()))
        if isinstance(document, dict):
            try:
                return tomli_w.dumps(_without_none(document)).encode()
            except (TypeError, ValueError, RecursionError):
                pass  # not every hostile value can be written as TOML
    return mutate_bytes(rng, text)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(v) for key, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value if v is not None]
    return value


CELLS = ("", " ", "-1", "0", "²", "१", "9" * 30, "9" * 5000, "nan", "..", "/", "../x", "\0", '"')
CELLS += (
    "train",
    "query",
    "\ud800",
    "a" * 300,
    "\n",
    "1e5",
    "None",
    "é",
    "2026-05-17",
    "0001-01-01",
)
"""Values that a table may have in place of any other."""


def mutate_table(rng: Random, text: bytes) -> bytes:
    """CSV or lines of words with other cells, fewer or more columns, or other bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, text)
    separator = "," if b"," in text else " "
    rows = [line.split(separator) for line in text.decode("utf-8", "surrogateescape").splitlines()]
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rng.choice(rows) if rows else [""]
        kind = rng.random()
        column = rng.randrange(len(row)) if row else 0
        if kind < 0.7 and row:
            row[column] = rng.choice(CELLS)
        elif kind < 0.8:
            row.insert(column, rng.choice(CELLS))
        elif kind < 0.9 and row:
            del row[column]
        else:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
    joined = "\n".join(map(separator.join, rows))
    return joined.encode("utf-8", "surrogatepass")


def mutate_numbers(rng: Random, data: bytes, *, code: str, offsets: Sequence[int]) -> bytes:
    """One number of a packed structure replaced by a magic integer.

    Args:
        code: of `struct`, such as "<I".
        offsets: where such numbers are.
    """
    changed = bytearray(data)
    size = struct.calcsize(code)
    for offset in rng.sample(list(offsets), min(len(offsets), rng.choice((1, 1, 2)))):
        value = rng.choice(MAGIC) % 256**size
        changed[offset : offset + size] = value.to_bytes(
            size, "big" if code[0] == ">" else "little"
        )
    return bytes(changed)
