"""Reading .npz files that may be hostile: features of other tools.

Such a file may contain pickled objects, declare terabytes that it does not hold, or expand to far
more than its own size. Sizes and headers are checked before an array is read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from reidkit.errors import DataError
from reidkit.files import check_regular

MAX_ENTRIES = 64
"""Arrays in a file."""
MAX_RATIO = 20
"""Size of all arrays over the size of the file, above `MIN_BOUND`. Embeddings hardly compress."""
MIN_BOUND = 1 << 28
"""Bytes of all arrays that are accepted in a file of any size."""


class NpzFile:
    """The arrays of an .npz file; use as a context manager.

    Attributes:
        path: the file.
        names: of its arrays, in the order of the file.

    Raises:
        DataError: on opening, if it is not such a file or declares more than it can hold.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_regular(path, DataError)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{path}: not a readable .npz file; {_reason(error)}") from error
        entries = self._zip.infolist()
        total, bound = sum(e.file_size for e in entries), path.stat().st_size * MAX_RATIO
        self.names = [e.filename.removesuffix(".npy") for e in entries]
        if len(entries) > MAX_ENTRIES or len(set(self.names)) < len(entries):
            self._zip.close()
            raise DataError(
                f"{path}: {len(entries)} arrays, expected at most {MAX_ENTRIES} of different names"
            )
        if total > max(bound, MIN_BOUND):
            self._zip.close()
            raise DataError(
                f"{path}: its arrays claim {total:,} bytes, more than {MAX_RATIO} times the file's "
                "size; refused"
            )

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def array(self, name: str, *, kinds: str, ndim: int) -> npt.NDArray[Any]:
        """An array of the file.

        Args:
            kinds: the accepted ones of NumPy's `dtype.kind`, such as "iuf".
        Raises:
            DataError: it is missing, damaged, of another type or number of dimensions, or its
                shape does not fit its size.
        """
        if name not in self.names:
            raise DataError(
                f"{self.path}: no array {name!r}, only {', '.join(self.names) or 'none at all'}"
            )
        try:
            info = self._zip.getinfo(f"{name}.npy")
            with self._zip.open(info) as stream:
                self._check_header(name, stream, info.file_size, kinds, ndim)
            with self._zip.open(info) as stream:
                values: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, RuntimeError) as error:
            raise DataError(f"{self.path}: {name!r} is damaged. Write the file again") from error
        except (
            ValueError,
            SyntaxError,
            TypeError,
            RecursionError,
            MemoryError,
            TokenError,
        ) as error:
            raise DataError(f"{self.path}: {name!r} is not a NumPy array of numbers") from error
        return values

    def _check_header(self, name: str, stream: IO[bytes], size: int, kinds: str, ndim: int) -> None:
        shape, _, dtype = _header_reader(np.lib.format.read_magic(stream))(stream)
        if dtype.hasobject:
            raise DataError(f"{self.path}: {name!r} contains Python objects; refused")
        if dtype.kind not in kinds:
            expected = "strings" if "U" in kinds else "numbers"
            raise DataError(f"{self.path}: {name!r} is {dtype}, expected {expected}")
        if len(shape) != ndim:
            found = "x".join(map(str, shape)) or "none"
            raise DataError(f"{self.path}: {name!r} has shape {found}, expected {ndim} dimensions")
        claimed = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or claimed != size - stream.tell():
            raise DataError(
                f"{self.path}: {name!r} claims {claimed:,} bytes and has {size - stream.tell():,}; "
                "refused"
            )


def _reason(error: Exception) -> str:
    """zipfile's error in our words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "it is not a zip file, or a damaged one"


_Header = tuple[tuple[int, ...], bool, "np.dtype[Any]"]


def _header_reader(version: tuple[int, int]) -> Callable[[IO[bytes]], _Header]:
    readers: dict[tuple[int, int], Callable[[IO[bytes]], _Header]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"format version {version[0]}.{version[1]}")
    return readers[version]
