"""masks/<dataset>.h5: part-index maps, verified and read. `writer.py` writes them.

    masks  uint8 [N, 320, 160]  a chunk per image, deflate: 0 background, k + 1 part k of `parts`
    sizes  uint16 [N, 2]        contiguous: height and width of the image itself
    paths  string [N]           contiguous, fixed length: relative to the data set's root, UTF-8
    attributes                  `format`, `version` and the fields of `Header`; tables as JSON

A map of at most 320x160 is stretched to nearest cells, so that with its size the original can be
read back; of a larger one each cell keeps the majority of its pixels. `losses.part_targets`
computes the loss's targets from both (docs/masks.md has the measured errors).

A file from elsewhere may be hostile. HDF5 reads its attributes and two contiguous arrays and lists
the chunks; it never runs a filter or follows a link out of the file. Chunks are inflated here, each
to its known length.
"""

# N masks, h w of the stored maps, H W of an image

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from reidkit.config.tables import from_table
from reidkit.errors import ConfigError, MaskError
from reidkit.masks.labels import MAX_PARTS
from reidkit.types import Dataset

FORMAT, VERSION = "reidkit-masks", 2
_MAX_ATTRIBUTE = 1 << 16
MAX_PATH = 1 << 10
_MAX_PATHS = 1 << 28  # bytes of all paths
_MAX_SIDE = 1 << 14  # of an image
MAX_CELLS = 1 << 18  # of a stored map

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Header:
    """The description that a mask file carries.

    Attributes:
        dataset, fingerprint: of the data set the images belong to.
        split: which of its splits have masks, joined by "+".
        source: where the masks come from, for people.
        key: the source's key; a journal is resumed only by the same.
        parts: index k + 1 in a mask is part k.
        grouping: part -> the parser's labels it is made of.
        writer: program and version.
    """

    dataset: str
    fingerprint: str
    split: str
    source: str
    key: str
    parts: tuple[str, ...]
    grouping: dict[str, tuple[str, ...]]
    writer: str = ""


def how_to_make(path: Path, dataset: Dataset, *, more: str = "") -> str:
    """The line that says what to type for masks of `dataset` at `path`."""
    own = (dataset.root / "manifest.toml").is_file()  # such a set is known by its folder
    where = "" if path == Path("masks") / f"{dataset.name}.h5" else f" -o {path}"
    name = dataset.root if own else dataset.name
    return f"\n       Run: reidkit prepare-masks --dataset {name} --labels DIR{where}{more}"


def require_store(path: Path, *, arch: str, dataset: Dataset) -> None:
    """Passes if there is a file at `path`; `MaskStore.open` verifies it.

    Raises:
        MaskError: that `arch` needs it, and what to type.
    """
    if not path.exists():
        raise MaskError(f"{arch} needs part masks and {_absent(path, dataset)}")


def _absent(path: Path, dataset: Dataset | None) -> str:
    unfinished = path.with_name(path.name + ".journal").exists()
    state = "unfinished; the same command resumes it" if unfinished else "missing"
    return f"{path} is {state}." + (how_to_make(path, dataset) if dataset else "")


class MaskStore:
    """A finished mask file, open for reading.

    May be pickled and may be used after a fork: what is pickled is the path, and a process that
    unpickles it opens the file for itself.

    Attributes:
        path: the file.
        header: its description.
        size: (height, width) of the maps.
    """

    def __init__(self, path: Path) -> None:
        """Use `open`, which verifies what the masks belong to."""
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                self._load(file)
        except MaskError as error:
            raise MaskError(f"{path}: {error}") from error.__cause__
        except (ConfigError, OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
            # h5py and json raise any of these for a damaged file, depending on where the damage is
            raise MaskError(f"{path}: not a readable mask store ({str(error)[:120]})") from error
        self._bytes = memoryview(np.memmap(path, np.uint8, mode="r").data)

    @classmethod
    def open(
        cls, path: Path, *, dataset: Dataset | None = None, parts: tuple[str, ...] = ()
    ) -> MaskStore:
        """Opens and verifies a store.

        Args:
            dataset: must be the one the masks were made for; None accepts any.
            parts: must be the store's, in the same order; empty accepts any.

        Raises:
            MaskError: if it is missing, unfinished, damaged, of another version or data set, or
                has other parts.
        """
        if not path.exists():
            raise MaskError(_absent(path, dataset))
        run = how_to_make(path, dataset, more=" --overwrite") if dataset else ""
        store = cls(path)
        header = store.header
        if dataset and header.fingerprint != dataset.fingerprint:
            raise MaskError(
                f"{path} holds masks of {header.dataset} (fingerprint {header.fingerprint[:12]}),"
                f" expected {dataset.name} ({dataset.fingerprint[:12]}) as it is on disk.{run}"
            )
        if parts and header.parts != parts:
            raise MaskError(
                f"{path} has the parts {', '.join(header.parts)}; expected {', '.join(parts)}.{run}"
            )
        return store

    @property
    def parts(self) -> tuple[str, ...]:
        """Part k has index k + 1 in the maps, 0 is background."""
        return self.header.parts

    @property
    def paths(self) -> tuple[str, ...]:
        """The images that have a mask, sorted."""
        return tuple(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, path: object) -> bool:
        return path in self._rows

    def read(self, paths: Sequence[str]) -> Bytes:
        """Part indices of images: uint8 [N, h, w], (h, w) = `size`.

        Raises:
            MaskError: if an image has no mask here, or its mask is damaged.
        """
        rows = self._find(paths)
        cells = self.size[0] * self.size[1]
        maps = np.empty((len(rows), cells), np.uint8)
        starts, ends = self._starts[rows].tolist(), self._ends[rows].tolist()
        for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
            inflater = zlib.decompressobj()
            try:
                data = inflater.decompress(self._bytes[start:end], cells + 1)
            except zlib.error:
                data = b""
            if len(data) != cells or not inflater.eof:
                raise MaskError(
                    f"{self.path}: the mask of {paths[number]} is damaged."
                    " Run reidkit prepare-masks again, with --overwrite"
                )
            maps[number] = np.frombuffer(data, np.uint8)
        return maps.reshape(-1, *self.size)

    def sizes(self, paths: Sequence[str]) -> npt.NDArray[np.int64]:
        """(height, width) of the images themselves: int64 [N, 2].

        Raises:
            MaskError: if an image has no mask here.
        """
        return np.asarray(self._sizes[self._find(paths)], np.int64)

    def _find(self, paths: Sequence[str]) -> list[int]:
        try:
            return [self._rows[path] for path in paths]
        except KeyError as error:
            raise MaskError(
                f"{self.path} has no mask of {error.args[0]}; it holds the split"
                f" {self.header.split} of {self.header.dataset} ({len(self):,} images)."
                f"\n       Run: reidkit prepare-masks --dataset {self.header.dataset} --split all"
                f" --overwrite -o {self.path}"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "header": self.header}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]  # opens the file again
        if self.header != state["header"]:
            raise MaskError(f"{self.path} was replaced while it was in use")

    def _load(self, file: h5py.File) -> None:
        """Reads all but the masks, and where those are in the file."""
        self.header = _header(file)
        masks, sizes, names = (_dataset(file, name) for name in ("masks", "sizes", "paths"))
        N, *size = masks.shape
        if len(size) != 2 or masks.chunks != (1, *size) or not 4 <= size[0] * size[1] <= MAX_CELLS:
            raise MaskError(f"masks {masks.shape} in chunks of {masks.chunks}; refused")
        self.size = (int(size[0]), int(size[1]))
        self._starts, self._ends = _chunks(masks, self.path.stat().st_size)
        if sizes.shape != (N, 2) or names.shape != (N,):
            raise MaskError(f"{N} masks, sizes {sizes.shape}, paths {names.shape}; refused")
        if names.dtype.itemsize > MAX_PATH or N * names.dtype.itemsize > _MAX_PATHS:
            raise MaskError(f"{N} paths of {names.dtype.itemsize} bytes; refused")
        self._sizes = sizes[:]
        if not ((self._sizes > 0) & (self._sizes <= _MAX_SIDE)).all():
            raise MaskError(f"image sizes beyond 1 to {_MAX_SIDE} pixels; refused")
        self._rows = {name.decode(): row for row, name in enumerate(names[:].tolist())}
        if len(self._rows) != N or "" in self._rows:
            raise MaskError(f"{len(self._rows)} different paths, expected {N}, one per mask")


def _header(file: h5py.File) -> Header:
    found, version = _attribute(file, "format"), _attribute(file, "version")
    if found != FORMAT:
        raise MaskError(f"format {found!r}, expected {FORMAT!r}")
    if version != VERSION:
        raise MaskError(
            f"mask store of version {version}, expected {VERSION}."
            " Run reidkit prepare-masks again, with --overwrite"
        )
    table: dict[str, Any] = {
        name: str(_attribute(file, name)) for name in Header.__dataclass_fields__
    }
    for name in ("parts", "grouping"):
        try:
            table[name] = json.loads(table[name])
        except (ValueError, RecursionError) as error:
            raise MaskError(f"attribute {name!r} is not JSON") from error
    header = from_table(Header, table, where="attributes")
    if not 1 <= len(header.parts) <= MAX_PARTS:
        raise MaskError(f"{len(header.parts)} parts, expected 1 to {MAX_PARTS}")
    return header


def _attribute(file: h5py.File, name: str) -> str | int:
    """A scalar attribute: a string of bounded length, or a whole number."""
    if name not in file.attrs:
        raise MaskError(f"no attribute {name!r}; not a mask store")
    attribute = file.attrs.get_id(name)
    kind = attribute.dtype
    if attribute.shape != () or attribute.get_storage_size() > _MAX_ATTRIBUTE:
        raise MaskError(f"attribute {name!r} is not a scalar of at most {_MAX_ATTRIBUTE} bytes")
    if kind.kind not in "iuS":
        raise MaskError(f"attribute {name!r} of type {kind}, expected a plain string")
    value = np.empty((), kind)
    attribute.read(value)
    return bytes(value[()]).decode().strip() if kind.kind == "S" else int(value)


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """The data set `name`, if it is stored in this very file as this module stores it."""
    expected = {"masks": "uint8", "sizes": "uint16", "paths": "string"}[name]
    key = name.encode()
    if not file.id.links.exists(key):
        raise MaskError(f"no data set {name!r}; not a mask store")
    if file.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise MaskError(f"{name!r} is a soft or external link; refused")
    opened = h5py.h5o.open(file.id, key)
    if not isinstance(opened, h5py.h5d.DatasetID):
        raise MaskError(f"{name!r} is not a data set; refused")
    data, plan = h5py.Dataset(opened), opened.get_create_plist()
    found = "string" if data.dtype.kind == "S" else str(data.dtype)
    if found != expected:
        raise MaskError(f"{name!r} is {found}, expected {expected}")
    if plan.get_external_count():
        raise MaskError(f"{name!r} is stored in other files; refused")
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if name == "masks":
        if plan.get_layout() != h5py.h5d.CHUNKED or filters != [h5py.h5z.FILTER_DEFLATE]:
            raise MaskError(f"{name!r}: expected chunks with the deflate filter alone; refused")
        return data
    if plan.get_layout() != h5py.h5d.CONTIGUOUS:
        raise MaskError(f"{name!r}: expected contiguous storage; refused")
    offset = opened.get_offset()
    size = data.dtype.itemsize * int(np.prod(data.shape, dtype=object))
    if not offset or not size or offset + size > Path(file.filename).stat().st_size:
        raise MaskError(f"{name!r} is empty or reaches beyond the end of the file; refused")
    return data


def _chunks(
    masks: h5py.Dataset, file_size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First byte of each mask's chunk in the file, and the byte after its last."""
    N = masks.shape[0]
    if not 0 < N <= file_size:
        raise MaskError(f"{N} masks in a file of {file_size} bytes; refused")
    starts, ends = np.zeros(N, np.int64), np.zeros(N, np.int64)
    problems = []

    def visit(chunk: Any) -> bool | None:
        row, start, end = chunk.chunk_offset[0], chunk.byte_offset, chunk.byte_offset + chunk.size
        if row >= N or chunk.filter_mask or ends[row] or not 0 < start < end <= file_size:
            problems.append(row)
            return True  # stops
        starts[row], ends[row] = start, end
        return None

    masks.id.chunk_iter(visit)
    if problems:
        raise MaskError(f"the chunk of mask {problems[0]} is not in the file as expected; refused")
    if not ends.all():
        raise MaskError(f"{int((ends == 0).sum())} of {N} masks are missing")
    return starts, ends
