"""The mask store's HDF5 file: laid out once by `create`, read warily by `read_layout`.

    masks  uint8 [N, bytes]   contiguous; one row per image, packed as `grid.pack` does
    done   uint8 [ceil(N/8)]  contiguous; bit i % 8 of byte i // 8: row i is written
    paths  uint8 [bytes]      chunked, deflate; the N image paths in UTF-8, a newline after each
    attributes                the fields of `Header` and `version`; strings, tables as JSON

Somebody else's file may be hostile. So a data set is read only if it hangs on a hard link and is
contiguous or chunked, of the expected type and filters, of a size the file can really hold: no
soft or external link, no virtual data set, no external storage.
"""

# N masks

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from reidkit.errors import MaskError
from reidkit.masks.grid import GRIDS, MAP_SIZE, Grids, row_bytes
from reidkit.masks.lip import MAX_PARTS

FORMAT = "reidkit-masks"
VERSION = 1

_MAX_ATTRIBUTE = 1 << 16
_MAX_CHUNK = 1 << 24
_MAX_PATH = 4096
_MAX_PATHS = 1 << 28
_CHUNK = 1 << 16
_MAX_SIDE = 512
_MAX_CELLS = 1 << 13  # of all grids and the map: reading takes the square of it in memory


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the file says of itself.

    Attributes:
        dataset, fingerprint: of the data set the images belong to.
        split: which of its splits have masks, joined by "+".
        source: where the masks come from, for people.
        key: the source's key; a partial file is resumed only by the same.
        parts: index k + 1 in a mask is part k.
        grouping: part -> the parser's labels it is made of.
        grids: (height, width) of the grids whose points are stored.
        map_size: (height, width) of the maps that reading gives.
        writer: program and version.
    """

    dataset: str
    fingerprint: str
    split: str
    source: str
    key: str
    parts: tuple[str, ...]
    grouping: dict[str, list[str]]
    grids: Grids = GRIDS
    map_size: tuple[int, int] = MAP_SIZE
    writer: str = ""

    @property
    def row_bytes(self) -> int:
        return row_bytes(self.grids, len(self.parts) + 1)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Header and paths of a file, and where in it (bytes from its start) rows and bits are."""

    header: Header
    paths: tuple[str, ...]
    masks_offset: int
    done_offset: int

    @property
    def num_bits(self) -> int:
        """Bytes of the done bitmap."""
        return -(-len(self.paths) // 8)


def create(path: Path, header: Header, paths: Sequence[str]) -> Layout:
    """Lays the file out, all rows zero and no bit set.

    Raises:
        OSError: if the disk is full or the folder cannot be written.
        MaskError: if a path cannot be a key.
    """
    for name in paths:
        if "\n" in name or not 0 < len(name.encode()) <= _MAX_PATH:
            raise MaskError(f"image path {name[:80]!r} cannot be a key: empty, too long or broken")
    path.write_bytes(_image(header, paths))
    return read_layout(path)


def _image(header: Header, paths: Sequence[str]) -> bytes:
    """The bytes of the file, laid out in memory: on a full disk HDF5 itself would leave a file
    open that it cannot close, and crash the process; a plain write fails plainly."""
    blob = np.frombuffer("".join(f"{name}\n" for name in paths).encode(), np.uint8)
    N = len(paths)
    zero = np.zeros((), np.uint8)
    room = N * header.row_bytes + blob.size + (1 << 20)  # by small steps it would grow in minutes
    with h5py.File("image", "w", driver="core", backing_store=False, block_size=room) as file:
        file.attrs["format"] = np.bytes_(FORMAT.encode())
        file.attrs["version"] = np.int64(VERSION)
        for field in fields(header):
            value = getattr(header, field.name)
            text = value if isinstance(value, str) else json.dumps(value)
            file.attrs[field.name] = np.bytes_(text.encode() or b" ")
        chunk = min(_CHUNK, blob.size)
        file.create_dataset("paths", data=blob, chunks=(chunk,), compression="gzip")
        for name, shape in (("masks", (N, header.row_bytes)), ("done", (-(-N // 8),))):
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_layout(h5py.h5d.CONTIGUOUS)
            plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plan.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
            plan.set_fill_value(zero)
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_U8LE, space, dcpl=plan)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def read_layout(path: Path) -> Layout:
    """Header, paths and offsets of a mask store, verified; masks need not be done.

    Raises:
        MaskError: if the file is no mask store, of another version, damaged, or uses anything
            of HDF5 that a mask store does not.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _layout(file, path)
    except FileNotFoundError:
        raise MaskError(f"{path} does not exist; expected a mask store") from None
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        # h5py and json raise any of these for a damaged file, by where the damage is
        raise MaskError(f"{path}: not a readable mask store ({str(error)[:120]})") from error


def _layout(file: h5py.File, path: Path) -> Layout:
    found = _attribute(file, "format", path)
    if found != FORMAT:
        raise MaskError(f"{path}: format {found!r}, expected {FORMAT!r}")
    version = _attribute(file, "version", path)
    if version != VERSION:
        raise MaskError(
            f"{path}: mask store of version {version}, expected {VERSION}."
            " Make it anew: reidkit prepare-masks"
        )
    header = _header(file, path)
    masks = _dataset(file, "masks", path, contiguous=True)
    done = _dataset(file, "done", path, contiguous=True)
    blob = _dataset(file, "paths", path, contiguous=False)
    if len(masks.shape) != 2 or masks.shape[1] != header.row_bytes:
        raise MaskError(f"{path}: masks {masks.shape}, expected [N, {header.row_bytes}]")
    N = masks.shape[0]
    if done.shape != (-(-N // 8),):
        raise MaskError(f"{path}: done {done.shape}, expected [{-(-N // 8)}] for {N} masks")
    if len(blob.shape) != 1 or not 0 < blob.shape[0] <= min(N * (_MAX_PATH + 1), _MAX_PATHS):
        raise MaskError(f"{path}: paths {blob.shape} for {N} masks; refused")
    text = np.empty(blob.shape, np.uint8)
    blob.read(h5py.h5s.ALL, h5py.h5s.ALL, text)
    paths = tuple(text.tobytes().decode().split("\n"))
    if len(paths) != N + 1 or paths[-1] or len(set(paths)) != len(paths):
        found = len(set(paths) - {""})
        raise MaskError(f"{path}: {found} different paths, expected {N}, one per mask")
    return Layout(
        header=header,
        paths=paths[:-1],
        masks_offset=masks.get_offset(),
        done_offset=done.get_offset(),
    )


def _header(file: h5py.File, path: Path) -> Header:
    values: dict[str, Any] = {}
    for field in fields(Header):
        text = str(_attribute(file, field.name, path))
        values[field.name] = text if field.type == "str" else json.loads(text)
    values["parts"] = tuple(values["parts"])
    values["grids"] = tuple((int(h), int(w)) for h, w in values["grids"])
    height, width = values["map_size"]
    values["map_size"] = (int(height), int(width))
    header = Header(**values)
    if not 1 <= len(header.parts) <= MAX_PARTS or not all(isinstance(p, str) for p in header.parts):
        raise MaskError(f"{path}: {len(header.parts)} parts, expected 1 to {MAX_PARTS} names")
    if not isinstance(header.grouping, dict) or not all(
        isinstance(labels, list) for labels in header.grouping.values()
    ):
        raise MaskError(f"{path}: grouping is no table of part = [labels]")
    sizes = (*header.grids, header.map_size)
    if not header.grids or not all(2 <= side <= _MAX_SIDE for size in sizes for side in size):
        raise MaskError(f"{path}: grids {header.grids} and map size {header.map_size} are absurd")
    if sum(h * w for h, w in sizes) > _MAX_CELLS:
        raise MaskError(f"{path}: grids {header.grids} and map size {header.map_size} are absurd")
    return header


def _attribute(file: h5py.File, name: str, path: Path) -> str | int:
    if not h5py.h5a.exists(file.id, name.encode()):
        raise MaskError(f"{path}: no attribute {name!r}; not a mask store")
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.dtype
    if attribute.shape != () or attribute.get_storage_size() > _MAX_ATTRIBUTE:
        raise MaskError(f"{path}: attribute {name!r} of shape {attribute.shape}, expected a scalar")
    if kind == np.int64:
        number = np.empty((), np.int64)
        attribute.read(number)
        return int(number)
    if kind.kind != "S":  # variable-length strings come as objects: they point elsewhere
        raise MaskError(f"{path}: attribute {name!r} of type {kind}, expected a plain string")
    text = np.empty((), kind)
    attribute.read(text)
    return bytes(text[()]).decode().strip()


def _dataset(file: h5py.File, name: str, path: Path, *, contiguous: bool) -> h5py.h5d.DatasetID:
    """The data set `name`, if it is uint8 bytes of this very file and nothing cleverer."""
    key = name.encode()
    if not file.id.links.exists(key):
        raise MaskError(f"{path}: no data set {name!r}; not a mask store")
    if file.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise MaskError(f"{path}: {name!r} is a soft or external link; refused")
    data = h5py.h5o.open(file.id, key)
    if not isinstance(data, h5py.h5d.DatasetID):
        raise MaskError(f"{path}: {name!r} is no data set; refused")
    plan = data.get_create_plist()
    layout = plan.get_layout()
    if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise MaskError(f"{path}: {name!r} is a virtual or compact data set; refused")
    if plan.get_external_count():
        raise MaskError(f"{path}: {name!r} is stored in other files; refused")
    if data.dtype != np.uint8:
        raise MaskError(f"{path}: {name!r} is {data.dtype}, expected uint8")
    if contiguous:
        size = int(np.prod(data.shape, dtype=object))
        offset = data.get_offset()
        if layout != h5py.h5d.CONTIGUOUS or not size or not offset:
            raise MaskError(f"{path}: {name!r} is not contiguous, or empty; refused")
        if offset + size > path.stat().st_size:
            raise MaskError(f"{path}: {name!r} reaches beyond the end of the file; refused")
    elif layout == h5py.h5d.CHUNKED:
        filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
        if any(number != h5py.h5z.FILTER_DEFLATE for number in filters):
            raise MaskError(f"{path}: {name!r} has filters {filters}, expected deflate; refused")
        if np.prod(plan.get_chunk(), dtype=object) > _MAX_CHUNK:
            raise MaskError(f"{path}: {name!r} has chunks of {plan.get_chunk()}; refused")
    return data
