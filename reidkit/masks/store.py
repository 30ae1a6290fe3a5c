"""masks/<dataset>.h5: part-index maps, verified and read. `writer.py` writes them.

    masks  uint8 [N, 400, 200]  a chunk per image, deflate: 0 background, k + 1 part k of `parts`
    sizes  uint16 [N, 2]        height and width of the image itself
    paths  string [N]           relative to the data set's root, UTF-8
    attributes                  `format`, `version` and the fields of `Header`; tables as JSON

A map of at most 400x200 is stretched to nearest cells, so that with its size the original can be
read back; of a larger one each cell keeps the majority of its pixels. `part_targets.py` computes
the loss's targets from both (docs/masks.md has the measured errors).

Files from elsewhere may be hostile: HDF5 lists the chunks and never inflates one.
"""

# N masks, h w of the stored maps, H W of an image

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from reidkit.config.tables import from_table
from reidkit.errors import MaskError
from reidkit.hdf5 import Scalar, open_array, open_hdf5, read_array, read_attributes, read_strings
from reidkit.masks.agreement import Agreement
from reidkit.masks.labels import MAX_PARTS
from reidkit.types import Dataset

FORMAT, VERSION = "reidkit-masks", 2
MAX_PATH = 1 << 10  # bytes
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
        agreement: of the parser's test procedure with its original one, where they differ.
    """

    dataset: str
    fingerprint: str
    split: str
    source: str
    key: str
    parts: tuple[str, ...]
    grouping: dict[str, tuple[str, ...]]
    writer: str = ""
    agreement: Agreement | None = None


def default_path(dataset: str) -> Path:
    """Where the masks of the data set of this name are, in the working directory."""
    return Path("masks") / f"{dataset}.h5"


def how_to_make(path: Path, dataset: Dataset, *, more: str = "") -> str:
    """The line that says what to type for masks of `dataset` at `path`."""
    name = dataset.folder or dataset.name
    is_default = dataset.folder is None and path == default_path(dataset.name)
    where = "" if is_default else f" -o {quote(str(path))}"
    labels = "" if dataset.labels else " --labels DIR"
    return f"\n       Run: reidkit prepare-masks --dataset {quote(str(name))}{labels}{where}{more}"


def require_store(path: Path, *, arch: str, dataset: Dataset) -> None:
    """Passes if there is a file at `path`; `MaskStore.open` verifies it.

    Raises:
        MaskError: that `arch` needs it, and what to type.
    """
    if not path.exists():
        raise MaskError(
            f"{arch} needs part masks and {_absent(path, dataset)}\n"
            "       Without a parser's label maps: the same with --source stripes.\n"
            "       Without masks: reidkit train ... --set arch.part_supervision=false"
        )


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
        with open_hdf5(path, MaskError, "mask file") as file:
            self._load(file)
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

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the paths, parts, sizes and compressed maps, hexadecimal: the same for a file
        that was built again with the same maps."""
        digest = hashlib.sha256(json.dumps([self.paths, self.parts]).encode())
        digest.update(self._sizes.astype("<i8").tobytes())
        for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True):
            digest.update(self._bytes[start:end])
        return digest.hexdigest()

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
            try:
                data = zlib.decompress(self._bytes[start:end], bufsize=cells)
                maps[number] = np.frombuffer(data, np.uint8)
            except (zlib.error, ValueError) as error:  # ValueError: another number of cells
                raise MaskError(
                    f"{self.path}: the mask of {paths[number]} is damaged."
                    " Run reidkit prepare-masks again, with --overwrite"
                ) from error
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
        self.header = _header(read_attributes(file))
        masks = open_array(file, "masks", kinds="u", ndim=3)
        N, h, w = masks.shape
        self.size = (h, w)
        self._starts, self._ends = _chunks(masks, self.path.stat().st_size)
        self._sizes = read_array(file, "sizes", kinds="u", ndim=2)
        names = read_strings(file, "paths", max_length=MAX_PATH)
        if self._sizes.shape != (N, 2) or len(names) != N:
            raise MaskError(f"{N} masks, sizes {self._sizes.shape}, {len(names)} paths; refused")
        if not ((self._sizes > 0) & (self._sizes <= _MAX_SIDE)).all():
            raise MaskError(f"image sizes beyond 1 to {_MAX_SIDE} pixels; refused")
        self._rows = {name: row for row, name in enumerate(names)}
        if len(self._rows) != N or "" in self._rows:
            raise MaskError(f"{len(self._rows)} different paths, expected {N}, one per mask")


def _header(attributes: Mapping[str, Scalar]) -> Header:
    table: dict[str, Any] = dict(attributes)
    found, version = table.pop("format", None), table.pop("version", None)
    if found != FORMAT:
        raise MaskError(f"format {found!r:.40}, expected {FORMAT!r}; not a mask file")
    if version != VERSION:
        raise MaskError(
            f"mask file of version {version!s:.40}, expected {VERSION}."
            " Run reidkit prepare-masks again, with --overwrite"
        )
    for name in {"parts", "grouping", "agreement"} & table.keys():
        try:
            table[name] = json.loads(str(table[name]))
        except (ValueError, RecursionError) as error:
            raise MaskError(f"attribute {name!r} is not JSON") from error
    header = from_table(Header, table, where="attributes")
    if not 1 <= len(header.parts) <= MAX_PARTS:
        raise MaskError(f"{len(header.parts)} parts, expected 1 to {MAX_PARTS}")
    return header


def _chunks(
    masks: h5py.Dataset, file_size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First byte of each mask's chunk in the file, and the byte after its last."""
    N, h, w = masks.shape
    gzip_alone = masks.compression == "gzip" and not (masks.shuffle or masks.fletcher32)
    if masks.chunks != (1, h, w) or not gzip_alone or masks.dtype != np.uint8:
        raise MaskError("masks: expected uint8 in chunks of one mask, compressed by gzip alone")
    if not 0 < N <= file_size or not 4 <= h * w <= MAX_CELLS:
        raise MaskError(f"{N} masks of {h}x{w} in a file of {file_size} bytes; refused")
    starts, ends = np.zeros(N, np.int64), np.zeros(N, np.int64)
    problems = []

    def visit(chunk: Any) -> bool | None:
        row, start, end = chunk.chunk_offset[0], chunk.byte_offset, chunk.byte_offset + chunk.size
        fits = 0 < start < end <= file_size and chunk.size < 2 * h * w + 64
        if row >= N or chunk.filter_mask or ends[row] or not fits:
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
