"""Matrices and lists of texts from MATLAB files (version 5, which MATLAB 5 to 7 writes).

scipy's reader ends the process on some damaged files, so what the data sets' files contain is read
here, with every length checked. The format is that of MathWorks' "MAT-File Format", chapter 1.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError

MAX_BYTES = 1 << 26
"""Of a file, and of a variable that is inflated; the protocols' files have less than 1 MB."""

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_NUMBERS |= {13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _TEXT, _NUMERIC = 1, 4, range(6, 16)
_COMPLEX = 0x0800


class _Element(NamedTuple):
    kind: int
    data: bytes


def read_mat(path: Path) -> dict[str, NDArray[Any]]:
    """The numeric matrices, in the type they are stored in, and the cell arrays of texts, as arrays
    of strings, by name. Other variables are left out.

    Raises:
        DataError: it cannot be read, or is damaged, too large, or of another version.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES:,} bytes; refused")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise DataError(
            f"{path} cannot be read as a MATLAB file of version 5. Save it with: save -v7"
        )
    try:
        return dict(_variables(data[128:], order))
    except (struct.error, ValueError, zlib.error, LookupError) as error:
        raise DataError(f"{path} cannot be read as a MATLAB file: {error}") from error


def _variables(data: bytes, order: str) -> Iterator[tuple[str, NDArray[Any]]]:
    for element in _elements(data, order):
        matrix = element
        if element.kind == _COMPRESSED:
            inflated = zlib.decompressobj().decompress(element.data, MAX_BYTES)
            matrix = _next(_elements(inflated, order))
        if matrix.kind == _MATRIX:
            name, values = _matrix(matrix.data, order)
            if values is not None:
                yield name, values


def _elements(data: bytes, order: str) -> Iterator[_Element]:
    """The elements one after the other; a small one has its size in the upper half of its kind."""
    at = 0
    while at < len(data):
        word, size = struct.unpack_from(order + "II", data, at)
        start = at + 8
        if word >> 16:
            word, size, start = word & 0xFFFF, word >> 16, at + 4
        end = start + size
        if end > len(data) or (start == at + 4 and size > 4):
            raise ValueError(f"an element of {size:,} bytes ends beyond the file")
        yield _Element(word, data[start:end])
        at = end if word == _COMPRESSED else at + 8 if start == at + 4 else end + -end % 8


def _matrix(data: bytes, order: str) -> tuple[str, NDArray[Any] | None]:
    """Name and values of a matrix; None if it is neither numbers nor a cell array of texts."""
    if not data:
        return "", None
    parts = _elements(data, order)
    flags, dimensions, name = (_next(parts) for _ in range(3))
    word = struct.unpack_from(order + "I", flags.data)[0]
    sides = np.frombuffer(dimensions.data, order + "i4").tolist()
    if len(sides) < 2 or min(sides) < 0:
        raise ValueError(f"a matrix of the size {sides}")
    values: NDArray[Any] | None = None
    if word & 0xFF in _NUMERIC and not word & _COMPLEX:
        content = _next(parts)
        values = np.frombuffer(content.data, order + _NUMBERS[content.kind])
    elif word & 0xFF == _TEXT:
        content = _next(parts)
        values = np.array([_decode(content, order)])
        sides = [1]
    elif word & 0xFF == _CELL and math.prod(sides) <= len(data):
        cells = [_matrix(_next(parts).data, order)[1] for _ in range(math.prod(sides))]
        texts = [c.item() for c in cells if c is not None and c.size == 1 and c.dtype.kind == "U"]
        values = np.array(texts, np.str_) if len(texts) == len(cells) else None
    if values is None:
        return name.data.decode("latin-1"), None
    if values.size != math.prod(sides):
        raise ValueError(f"{values.size:,} values for a matrix of the size {sides}")
    return name.data.decode("latin-1"), values.reshape(sides, order="F")


def _next(parts: Iterator[_Element]) -> _Element:
    found = next(parts, None)
    if found is None:
        raise ValueError("a matrix ends early")
    return found


def _decode(content: _Element, order: str) -> str:
    encoding = _TEXTS[content.kind]
    ending = {"<": "-le", ">": "-be"}[order] if encoding in ("utf-16", "utf-32") else ""
    return content.data.decode(encoding + ending)
