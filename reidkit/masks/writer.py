"""Writing masks/<dataset>.h5 so that a run killed at any moment resumes.

Records are appended to `<path>.journal`; when it is complete, the HDF5 file is composed in memory,
written to `<path>.partial` and renamed. So a kill never meets half-written HDF5 structures, and a
full disk never meets the HDF5 library, which would crash.
"""

# N masks, H W of an image, h w of the stored maps, P parts

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import numpy.typing as npt

import reidkit
from reidkit.errors import DataError, MaskError
from reidkit.files import atomic, exclusive_lock, os_error_text
from reidkit.masks.sources import MaskSource
from reidkit.masks.store import FORMAT, MAX_CELLS, MAX_PATH, VERSION, Bytes, Header
from reidkit.types import Dataset, Sample

log = logging.getLogger(__name__)

STORED_SIZE = (400, 200)
"""(height, width) of the stored maps: benchmarks/mask_store.py compares sizes."""
BATCH = 128
"""Images between two syncs to disk: the most that a power cut can cost."""

_RECORD = struct.Struct("<HHII")  # height, width, bytes, crc32 of the bytes


def write_store(
    path: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    source: MaskSource,
    *,
    split: str = "train",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes one mask per sample to `path`, or resumes where a killed run stopped.

    A journal of other images, parts or label maps is restarted.

    Args:
        samples: of `dataset`; an image that occurs twice is stored once.
        split: which split(s) the samples are, for the record.
        progress: called with (masks written, masks in all): once at first, then per mask.

    Raises:
        DataError: from the source, at the first image without a map.
        MaskError: if another process is writing this file, or the disk is full.
    """
    paths = tuple(sorted({sample.path for sample in samples}))
    if not paths:
        raise DataError(f"{dataset.name}: no images in split {split}; expected at least one")
    for name in paths:
        if not 0 < len(name.encode()) <= MAX_PATH or "\0" in name:
            raise MaskError(f"image path {name[:80]!r}: expected 1 to {MAX_PATH} bytes without NUL")
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
    journal = path.with_name(path.name + ".journal")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        journal.touch()
        with exclusive_lock(journal), journal.open("r+b") as records:
            _fill(records, header, paths, source, progress or (lambda done, total: None))
            with atomic(path) as partial:
                partial.write_bytes(_hdf5(header, paths, records))
            journal.unlink()
    except OSError as error:
        raise MaskError(
            f"cannot write {journal}: {os_error_text(error)}."
            " Free some space, and the same command resumes; or choose another file with -o FILE"
        ) from error


def _fill(
    journal: BinaryIO,
    header: Header,
    paths: Sequence[str],
    source: MaskSource,
    progress: Callable[[int, int], None],
) -> None:
    """Appends the records that are missing: a line that identifies the task, then one per path."""
    names = hashlib.sha256("\n".join(paths).encode()).hexdigest()
    task = json.dumps({**asdict(header), "version": VERSION, "paths": names}).encode() + b"\n"
    found = journal.readline(len(task))
    if found != task:
        if found:
            log.warning("%s is of other images, parts or label maps: restarting", journal.name)
        journal.seek(0)
        journal.truncate()
        journal.write(task)
    end, done = journal.tell(), 0
    for _ in _records(journal):
        end, done = journal.tell(), done + 1
    journal.seek(end)
    journal.truncate()  # a record that a kill cut short
    if done:
        log.info("resuming with %d of %d masks done", done, len(paths))
    progress(done, len(paths))
    for start in range(done, len(paths), BATCH):
        for part_map in source.part_maps(paths[start : start + BATCH]):
            data = zlib.compress(
                stored_map(part_map, num_parts=len(header.parts)).tobytes(), level=9
            )
            journal.write(_RECORD.pack(*part_map.shape, len(data), zlib.crc32(data)) + data)
            done += 1
            progress(done, len(paths))
        journal.flush()
        os.fsync(journal.fileno())


def _records(journal: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(height, width, deflated map) of all whole records from the current position."""
    while len(head := journal.read(_RECORD.size)) == _RECORD.size:
        height, width, length, checksum = _RECORD.unpack(head)
        data = journal.read(min(length, 2 * MAX_CELLS))
        if len(data) != length or zlib.crc32(data) != checksum:
            return
        yield height, width, data


def stored_map(part_map: Bytes, *, num_parts: int) -> Bytes:
    """A part map [H, W] as it is stored: uint8 [h, w] = STORED_SIZE."""
    rows, columns = map(_selection, part_map.shape, STORED_SIZE)
    if part_map.shape[0] <= STORED_SIZE[0] and part_map.shape[1] <= STORED_SIZE[1]:
        return np.asarray(part_map[rows.argmax(1)[:, None], columns.argmax(1)])
    planes = part_map == np.arange(num_parts + 1, dtype=np.uint8)[:, None, None]
    votes = rows @ (planes.astype(np.float32) @ columns.T)  # [h, H] @ [P+1, H, W] @ [W, w]
    return np.asarray(votes.argmax(0), np.uint8)


@lru_cache(maxsize=256)  # images come in many sizes
def _selection(source: int, stored: int) -> npt.NDArray[np.float32]:
    """[stored, source]: 1 where a cell shows a pixel, or represents it when there are more pixels
    than cells."""
    matrix = np.zeros((stored, source), np.float32)
    if source <= stored:
        cells = np.arange(stored)
        matrix[cells, ((cells + 0.5) * source / stored).astype(int)] = 1
    else:
        pixels = np.arange(source)
        matrix[((pixels + 0.5) * stored / source).astype(int), pixels] = 1
    return matrix


def _hdf5(header: Header, paths: Sequence[str], journal: BinaryIO) -> bytes:
    """The bytes of the finished file."""
    N = len(paths)
    names = np.array([name.encode() for name in paths])
    journal.seek(0, os.SEEK_END)
    room = journal.tell() + names.nbytes + 100 * N + (1 << 20)  # growing in steps takes minutes
    journal.seek(0)
    journal.readline()
    options = {"driver": "core", "backing_store": False, "block_size": room}
    with h5py.File("image", "w", libver=("v110", "v110"), **options) as file:  # a small index
        file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), np.int64(VERSION)
        for name, value in asdict(header).items():
            text = value if isinstance(value, str) else json.dumps(value)
            file.attrs[name] = np.bytes_(text.encode() or b" ")
        text_type = h5py.string_dtype("utf-8", names.itemsize)
        file.create_dataset("paths", data=names.astype(text_type))
        shape, chunk = (N, *STORED_SIZE), (1, *STORED_SIZE)
        masks = file.create_dataset("masks", shape, np.uint8, chunks=chunk, compression="gzip")
        sizes = np.empty((N, 2), np.uint16)
        for row, (height, width, data) in enumerate(_records(journal)):
            sizes[row] = height, width
            masks.id.write_direct_chunk((row, 0, 0), data)
        file["sizes"] = sizes
        file.flush()
        image: bytes = file.id.get_file_image()
    return image
