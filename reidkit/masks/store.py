"""masks/<dataset>.h5: written so that a killed run resumes, opened by every worker for itself.

HDF5 lays the file out once (`layout.py`); rows and bits are then written in place, at the offsets
HDF5 gave them. So no kill can meet half-written HDF5 structures, and a row whose bit is not set
is made again.
"""

# N masks, h w of the maps that are read

from __future__ import annotations

import errno
import importlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

import reidkit
from reidkit.errors import DataError, MaskError
from reidkit.masks.grid import pack, sample_points, spread_index, unpack_table
from reidkit.masks.layout import Header, Layout, create, read_layout
from reidkit.masks.sources import MaskSource
from reidkit.types import Dataset, Sample, Tracklet

log = logging.getLogger(__name__)

BATCH = 128
"""Images between two flushes: the most that a kill can cost."""

Bytes = npt.NDArray[np.uint8]


def frames(split: Iterable[Sample | Tracklet]) -> list[Sample]:
    """All images of a split; tracklets are taken apart."""
    samples: list[Sample] = []
    for entry in split:
        samples += entry.frames if isinstance(entry, Tracklet) else (entry,)
    return samples


def write_store(
    path: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    source: MaskSource,
    *,
    split: str = "train",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes one mask per sample to `path`, or goes on where a killed run stopped.

    The work is done in `<path>.partial`, which gets its final name when it is whole and on disk.
    A partial file of other images, parts or maps is begun anew.

    Args:
        samples: of `dataset`; an image that comes twice is stored once.
        split: which split(s) the samples are, for the record.
        progress: called with (masks written, masks in all): once at first, then per mask.

    Raises:
        DataError: from the source, for the first image it cannot give a map of.
        MaskError: if another process is writing this file, or the disk is full.
    """
    paths = tuple(sorted({sample.path for sample in samples}))
    if not paths:
        raise DataError(f"{dataset.name}: no images in split {split}; expected some to mask")
    header = Header(
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        split=split,
        source=source.name,
        key=source.key,
        parts=source.parts,
        grouping=source.grouping,
        writer=f"reidkit {reidkit.__version__}",
    )
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as lock:
            _lock(lock, partial)
            layout = _resumable(partial, header, paths) or create(partial, header, paths)
            with partial.open("r+b") as file:
                _fill(file, layout, source, progress or (lambda done, total: None))
                os.fsync(file.fileno())
            partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        advice = "Write elsewhere by -o FILE"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            megabytes = header.row_bytes * len(paths) / 1e6
            advice = f"It needs {megabytes:.1f} MB: make room, and the same command resumes"
        reason = error.strerror or error
        raise MaskError(f"cannot write {partial}: {reason}. {advice}") from error


def how_to_make(path: Path, dataset: Dataset, *, more: str = "") -> str:
    """The line that tells what to type for masks of `dataset` at `path`."""
    own = (dataset.root / "manifest.toml").is_file()  # such a set is known by its place
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
    unfinished = path.with_name(path.name + ".partial").exists()
    said = f"{path} is {'unfinished' if unfinished else 'missing'}."
    more = " (it resumes)" if unfinished else ""
    return said + (how_to_make(path, dataset, more=more) if dataset else "")


class MaskStore:
    """A finished mask file, open for reading.

    May be pickled and may be used after a fork: what travels is the path, and a process that
    unpickles it opens the file for itself.

    Attributes:
        path: the file.
        header: what it says of itself.
    """

    def __init__(self, path: Path, *, layout: Layout) -> None:
        self.path = path
        self.header = layout.header
        self._index = {name: row for row, name in enumerate(layout.paths)}
        self._offset = layout.masks_offset
        self._rows: Bytes | None = None

    @classmethod
    def open(
        cls, path: Path, *, dataset: Dataset | None = None, parts: tuple[str, ...] = ()
    ) -> MaskStore:
        """Opens and verifies a store.

        Args:
            dataset: must be the one the masks were made of; None accepts any.
            parts: must be the store's, in the same order; empty accepts any.

        Raises:
            MaskError: if it is missing, unfinished, damaged, of another version or data set, or
                has other parts.
        """
        if not path.exists():
            raise MaskError(_absent(path, dataset))
        layout = read_layout(path)
        header = layout.header
        run = how_to_make(path, dataset, more=" --overwrite") if dataset else ""
        if dataset and header.fingerprint != dataset.fingerprint:
            raise MaskError(
                f"{path} holds masks of {header.dataset} (fingerprint {header.fingerprint[:12]}),"
                f" expected {dataset.name} ({dataset.fingerprint[:12]}) as it is on disk.{run}"
            )
        if parts and header.parts != parts:
            raise MaskError(
                f"{path} has the parts {', '.join(header.parts)}; expected {', '.join(parts)}.{run}"
            )
        with path.open("rb") as file:
            left = len(layout.paths) - int(_done(file, layout).sum())
        if left:
            raise MaskError(f"{path}: {left} of {len(layout.paths)} masks are not done.{run}")
        return cls(path, layout=layout)

    @property
    def parts(self) -> tuple[str, ...]:
        """Part k has index k + 1 in the maps, 0 is background."""
        return self.header.parts

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the maps."""
        return self.header.map_size

    @property
    def paths(self) -> tuple[str, ...]:
        """The images that have a mask, sorted."""
        return tuple(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, path: object) -> bool:
        return path in self._index

    def read(self, paths: Sequence[str]) -> Bytes:
        """Part indices of images: uint8 [N, h, w], (h, w) = `size`.

        Resizing the one-hot planes of a map bilinearly with aligned corners gives the targets of
        the part-attention loss (see `grid.py`).

        Raises:
            MaskError: if an image has no mask here.
        """
        try:
            rows = [self._index[path] for path in paths]
        except KeyError as error:
            raise MaskError(
                f"{self.path} has no mask of {error.args[0]}; it holds the split"
                f" {self.header.split} of {self.header.dataset} ({len(self):,} images)."
                "\n       Run: reidkit prepare-masks with the --split that is wanted"
            ) from None
        if self._rows is None:
            self._rows = self._map()
        N = len(rows)
        table = unpack_table(len(self.parts) + 1)
        values = table.take(self._rows.take(rows, axis=0), axis=0).reshape(N, -1)
        # mode="clip" spares numpy a copy; the index is in range by construction
        spread = spread_index(self.header.grids, self.size)
        return values.take(spread, axis=1, mode="clip").reshape(N, *self.size)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "header": self.header}

    def __setstate__(self, state: dict[str, Any]) -> None:
        layout = read_layout(state["path"])
        if layout.header != state["header"]:
            raise MaskError(f"{state['path']} was replaced while it was in use")
        self.__init__(state["path"], layout=layout)  # type: ignore[misc]  # as `open` would

    def _map(self) -> Bytes:
        shape = (len(self), self.header.row_bytes)
        rows = np.memmap(self.path, np.uint8, mode="r", offset=self._offset, shape=shape)
        return np.asarray(rows)


def _resumable(partial: Path, header: Header, paths: tuple[str, ...]) -> Layout | None:
    """The layout of a partial file that this run may go on with."""
    if partial.stat().st_size == 0:
        return None
    try:
        layout = read_layout(partial)
    except MaskError as error:
        log.warning("%s cannot be resumed, beginning anew: %s", partial, error)
        return None
    if layout.header != header or layout.paths != paths:
        log.warning("%s is of other images, parts or label maps: beginning anew", partial)
        return None
    return layout


def _fill(
    file: BinaryIO, layout: Layout, source: MaskSource, progress: Callable[[int, int], None]
) -> None:
    """Makes and writes every row that is not done: rows, flush, then their bits."""
    done = _done(file, layout)
    num_labels = len(layout.header.parts) + 1
    total, count = len(done), int(done.sum())
    if count:
        log.info("resuming with %d of %d masks done", count, total)
    progress(count, total)
    todo = np.flatnonzero(~done)
    for start in range(0, len(todo), BATCH):
        rows = todo[start : start + BATCH]
        values = []
        for part_map in source.part_maps([layout.paths[row] for row in rows]):
            values.append(sample_points(part_map, num_labels=num_labels, grids=layout.header.grids))
            progress(count + len(values), total)
        packed = pack(np.stack(values), num_labels=num_labels)
        for row, mask in zip(rows.tolist(), packed, strict=True):
            file.seek(layout.masks_offset + row * layout.header.row_bytes)
            file.write(mask.tobytes())
        file.flush()
        os.fsync(file.fileno())  # rows are on the disk before their bits are
        done[rows] = True
        count += len(rows)
        file.seek(layout.done_offset)
        file.write(np.packbits(done, bitorder="little").tobytes())
        file.flush()


def _done(file: BinaryIO, layout: Layout) -> npt.NDArray[np.bool_]:
    """bool [N]: which rows are written."""
    file.seek(layout.done_offset)
    bits = np.frombuffer(file.read(layout.num_bits), np.uint8)
    return np.unpackbits(bits, count=len(layout.paths), bitorder="little").astype(bool)


def _lock(file: BinaryIO, partial: Path) -> None:
    """Keeps a second writer out until the file is closed, where the system has such locks."""
    if os.name == "nt":
        return
    fcntl = importlib.import_module("fcntl")
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MaskError(f"{partial} is being written by another process; wait for it") from None


def _sync_folder(folder: Path) -> None:
    if os.name != "nt":  # makes the new name itself last
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
