"""Reading HDF5 files that may be hostile: part masks and features.

Such a file may refer to other files (links, external and virtual storage), declare terabytes that
it does not hold, or contain types that h5py turns into objects. Everything is checked before it is
read: kind, type, and size against the file's own.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from reidkit.errors import DataError, ReidkitError
from reidkit.files import check_regular, os_error_text

MAX_STRING = 1 << 16
"""Bytes of an attribute, and of a string in an array."""
_MAX_RATIO = 1100  # deflate's is 1,032
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_COLLECTION = b"GCOL\1\0\0\0"
_HEAP_OBJECT = struct.Struct("<HHIQ")  # index, references, reserved, bytes
_VLEN = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])

MAPPED_BYTES = 1 << 28
"""Arrays of this size are mapped into memory instead of read."""

Scalar = str | int | float | bool


@contextmanager
def open_hdf5(path: Path, error: type[ReidkitError], kind: str) -> Iterator[h5py.File]:
    """Opens a file for reading; whatever is wrong with it becomes an `error` that names it.

    Args:
        kind: what the file should be, for the message: "mask file".
    """
    check_regular(path, error)
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except ReidkitError as known:
        raise error(f"{path}: {known}") from known
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as unknown:
        # h5py raises any of these for a damaged file, depending on where the damage is
        raise error(f"{path}: not a readable {kind}; {_reason(unknown)}") from unknown


def _reason(error: Exception) -> str:
    """h5py's error in our words."""
    text = str(error)
    if "signature not found" in text:
        return "it is not HDF5"
    if isinstance(error, OSError) and error.errno:
        return os_error_text(error).lower()
    return "it is truncated" if "truncated" in text or "eof" in text else "it is damaged"


def read_attributes(file: h5py.File) -> dict[str, Scalar]:
    """The scalar attributes: strings, numbers and booleans. Others are left out.

    Raises:
        DataError: one is longer than `MAX_STRING`, or is not UTF-8.
    """
    attributes: dict[str, Scalar] = {}
    is_checked = False
    for name in file.attrs:
        attribute = file.attrs.get_id(name)
        plain = attribute.dtype.kind in "biufS" or h5py.check_string_dtype(attribute.dtype)
        if attribute.shape != () or not plain:
            continue
        if attribute.get_storage_size() > MAX_STRING:
            raise DataError(f"attribute {name!r} is longer than {MAX_STRING} bytes; refused")
        if h5py.check_string_dtype(attribute.dtype) and attribute.dtype.kind == "O":
            if not is_checked:
                _check_heap(file)
            is_checked = True
        value = file.attrs[name]
        attributes[name] = value.decode() if isinstance(value, bytes) else _python(value)
    return attributes


def _python(value: Any) -> Scalar:
    scalar: Scalar = value.item() if isinstance(value, np.generic) else value
    return scalar.decode() if isinstance(scalar, bytes) else scalar


def open_array(file: h5py.File, name: str, *, kinds: str, ndim: int) -> h5py.Dataset:
    """An array that is safe to read.

    Args:
        kinds: the accepted ones of NumPy's `dtype.kind`, such as "iu"; "O" is a string of variable
            length.
    Raises:
        DataError: it is missing, not stored in this very file, of another type or number of
            dimensions, or larger than the file can hold.
    """
    key = name.encode()
    if not file.id.links.exists(key):
        raise DataError(f"no data set {name!r}, only {', '.join(file) or 'none at all'}")
    if file.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise DataError(f"{name!r} is a soft or external link; refused")
    opened = h5py.h5o.open(file.id, key)
    if not isinstance(opened, h5py.h5d.DatasetID):
        raise DataError(f"{name!r} is not a data set; refused")
    data, plan = h5py.Dataset(opened), opened.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise DataError(f"{name!r} is stored in other files; refused")
    if data.dtype.kind not in kinds or (data.dtype.kind == "O" and not _is_string(data)):
        raise DataError(f"{name!r} is {data.dtype}, expected {_names(kinds)}")
    if data.shape is None or len(data.shape) != ndim:
        shape = "x".join(map(str, data.shape or ())) or "none"
        raise DataError(f"{name!r} has shape {shape}, expected {ndim} dimensions")
    filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
    if filters - _FILTERS:
        raise DataError(f"{name!r} is compressed otherwise than by gzip; refused")
    size = opened.get_type().get_size() * int(np.prod(data.shape, dtype=object))
    room = Path(file.filename).stat().st_size * (_MAX_RATIO if filters else 1)
    if size > room:
        raise DataError(f"{name!r} claims {size:,} bytes, more than the file can hold; refused")
    return data


def _is_string(data: h5py.Dataset) -> bool:
    return h5py.check_string_dtype(data.dtype) is not None


def _names(kinds: str) -> str:
    names = {"f": "numbers", "i": "integers", "u": "unsigned integers", "S": "strings"}
    return next(name for kind, name in names.items() if kind in kinds)


def read_array(file: h5py.File, name: str, *, kinds: str, ndim: int) -> npt.NDArray[Any]:
    """The values of `open_array`."""
    values: npt.NDArray[Any] = open_array(file, name, kinds=kinds, ndim=ndim)[()]
    return values


def map_array(file: h5py.File, name: str, *, kinds: str, ndim: int) -> npt.NDArray[Any]:
    """The values of `open_array`; from `MAPPED_BYTES` on as a read-only map of the file, so that
    they need not fit into memory, if they are stored in one piece."""
    data = open_array(file, name, kinds=kinds, ndim=ndim)
    offset = data.id.get_offset()  # None: in chunks
    if offset is None or data.nbytes < MAPPED_BYTES:
        values: npt.NDArray[Any] = data[()]
        return values
    if offset + data.nbytes > Path(file.filename).stat().st_size:
        raise DataError(f"{name!r} is cut off")
    return np.memmap(file.filename, data.dtype, "r", offset, data.shape)


def _heap_texts(path: Path, elements: npt.NDArray[Any]) -> list[bytes]:
    """Strings of variable length, from the collections of the file's global heap.

    The HDF5 library never returns from some damaged collections, so they are read here, as in
    "HDF5 File Format Specification Version 3.0", section III.E.
    """
    heap = memoryview(np.memmap(path, np.uint8, mode="r").data)
    collections: dict[int, dict[int, bytes]] = {}
    texts = []
    for length, address, index in elements.tolist():
        if length and address not in collections:
            collections[address] = _heap_objects(heap, address)
        text = collections[address].get(index, b"") if length else b""
        if len(text) < length:
            raise DataError(f"a string of {length:,} bytes is not in the file")
        texts.append(text[:length])
    return texts


def _check_heap(file: h5py.File) -> None:
    """Raises DataError if the HDF5 library might not return from reading a string attribute.

    Searches the file for collections, except within arrays that are mapped, not read.
    """
    pieces = sorted(_pieces(file))
    with (
        Path(file.filename).open("rb") as raw,
        mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as m,
    ):
        starts = [0, *(stop for _, stop in pieces)]
        stops = [*(start for start, _ in pieces), len(m)]
        for start, stop in zip(starts, stops, strict=True):
            at = m.find(_COLLECTION, start, stop)
            while at >= 0:
                with memoryview(m) as heap:
                    _heap_objects(heap, at)
                at = m.find(_COLLECTION, at + 1, stop)


def _pieces(file: h5py.File) -> Iterator[tuple[int, int]]:
    """First byte of each large array that is stored in one piece, and the byte after it."""
    for key in file.id:  # bytes: a name need not be UTF-8
        if file.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
            continue
        opened = h5py.h5o.open(file.id, key)
        if not isinstance(opened, h5py.h5d.DatasetID) or opened.get_offset() is None:
            continue
        if opened.get_storage_size() >= MAPPED_BYTES:
            yield opened.get_offset(), opened.get_offset() + opened.get_storage_size()


def _heap_objects(heap: memoryview, start: int) -> dict[int, bytes]:
    """The objects of the collection at a byte of the file, by index."""
    if start + 16 > len(heap) or bytes(heap[start : start + 8]) != _COLLECTION:
        raise DataError(f"no collection of strings at byte {start:,}")
    end = start + int.from_bytes(heap[start + 8 : start + 16], "little")
    if end > len(heap):
        raise DataError(f"the collection of strings at byte {start:,} ends beyond the file")
    objects: dict[int, bytes] = {}
    at = start + 16
    while at + 16 <= end:
        index, _, _, size = _HEAP_OBJECT.unpack_from(heap, at)
        length = size if index == 0 else 16 + size + -size % 8  # 0: free space, head included
        if not 16 <= length <= end - at:
            raise DataError(f"the collection of strings at byte {start:,} is damaged")
        if index:
            objects[index] = bytes(heap[at + 16 : at + 16 + size])
        at += length
    return objects


def read_strings(file: h5py.File, name: str, *, max_length: int = MAX_STRING) -> list[str]:
    """UTF-8 strings of a one-dimensional array, of fixed or variable length.

    Raises:
        DataError: as `open_array`; a string is longer than `max_length` bytes or not UTF-8.
    """
    data = open_array(file, name, kinds="SO", ndim=1)
    longest, elements = data.dtype.itemsize, None
    if data.dtype.kind == "O":  # many elements may share one long string: sizes first
        offset = data.id.get_offset()
        if offset is None and len(data):
            raise DataError(f"{name!r}: expected strings of fixed length, or contiguous storage")
        elements = np.zeros(0, _VLEN)
        if len(data):
            elements = np.memmap(file.filename, _VLEN, "r", offset, len(data))
        longest = int(elements["length"].max(initial=0))
    if longest > max_length:
        raise DataError(f"{name!r} has strings of {longest:,} bytes, at most {max_length:,}")
    texts = data[()].tolist() if elements is None else _heap_texts(Path(file.filename), elements)
    try:
        return [text.decode() for text in texts]
    except UnicodeDecodeError as error:
        raise DataError(f"{name!r} is not UTF-8") from error
