"""Writing masks/<dataset>.h5 so that a run killed at any moment resumes.

Finished masks are appended to journals, one of each process. When all are done, the HDF5 file is
composed in memory, written to `<path>.partial` and renamed. So a kill never meets half-written HDF5
structures, and a full disk never meets the HDF5 library, which would crash.
"""

# N masks, H W of an image, h w of the stored maps, P parts

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

import reidkit
from reidkit.config.tables import from_table
from reidkit.errors import ConfigError, DataError, MaskError
from reidkit.files import atomic, check_regular, exclusive_lock, os_error_text
from reidkit.masks.agreement import Agreement
from reidkit.masks.journal import (
    Journal,
    Record,
    journal_path,
    journal_paths,
    read_records,
    remove_journals,
)
from reidkit.masks.processes import ONE_PROCESS, Processes
from reidkit.masks.sources import MaskSource
from reidkit.masks.store import FORMAT, MAX_PATH, VERSION, Bytes, Header
from reidkit.types import Dataset, Sample

log = logging.getLogger(__name__)

STORED_SIZE = (400, 200)
"""(height, width) of the stored maps: benchmarks/mask_store.py compares sizes."""
BATCH = 64
"""Images of each process between two meetings of the processes."""

Compare = Callable[[Sequence[str]], Agreement]
Progress = Callable[[int, int], None]


def write_store(
    path: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    source: MaskSource,
    *,
    split: str = "train",
    compare: Compare | None = None,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> None:
    """Writes one mask per sample to `path`, or resumes where a killed run stopped.

    A journal of other images, parts or label maps is restarted. Several processes that call this
    with the same arguments share the images; all return when the file is complete.

    Args:
        samples: of `dataset`; an image that occurs twice is stored once.
        split: which split(s) the samples are, for the record.
        compare: called once per task with all paths, before the first mask; for the record.
        processes: that share this call.
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
    task = _task(header, paths)
    file = journal_path(path, processes.rank)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        check_regular(file, MaskError)
        with exclusive_lock(file), file.open("r+b") as opened:
            journal = Journal(opened, task)
            if journal.restarted:
                log.warning("%s is of other images, parts or label maps: restarting", file)
            done = _done(path, task, journal, processes)
            if compare:
                header = replace(header, agreement=_agreement(journal, compare, paths, processes))
            _fill(journal, paths, done, source, processes, progress or (lambda done, total: None))
            if processes.is_main:
                with atomic(path) as partial:
                    records = _collect(path, task)
                    if len(records) < len(paths):
                        raise MaskError(
                            f"{file} was removed by another program. Run the same command again"
                        )
                    partial.write_bytes(_hdf5(header, paths, records))
                remove_journals(path)
        processes.broadcast(None)  # the others wait for the file
    except OSError as error:
        raise MaskError(
            f"cannot write {file}: {os_error_text(error)}."
            " Free some space, and the same command resumes; or choose another file with -o FILE"
        ) from error


def _task(header: Header, paths: Sequence[str]) -> bytes:
    """The line that identifies a task in its journals."""
    names = hashlib.sha256("\n".join(paths).encode()).hexdigest()
    facts = {**asdict(header), "version": VERSION, "paths": names, "journal": 2}
    return json.dumps(facts).encode() + b"\n"


def _done(path: Path, task: bytes, journal: Journal, processes: Processes) -> set[int]:
    """Numbers of the images whose masks are in any journal, the same set in every process."""
    done = set().union(*processes.gather(journal.rows))
    more: set[int] = set()  # of an earlier run with more processes
    if processes.is_main:
        own = {journal_path(path, rank) for rank in range(processes.size)}
        for file in set(journal_paths(path)) - own:
            more |= {record.row for record in read_records(file, task)}
    return done | processes.broadcast(more)


def _agreement(
    journal: Journal, compare: Compare, paths: Sequence[str], processes: Processes
) -> Agreement:
    """What `compare` finds, from the journal where a killed run has measured it."""
    known = [note for note in processes.gather(journal.note) if note]
    note = known[0] if known else json.dumps(asdict(compare(paths)))
    if journal.note is None:
        journal.annotate(note)
    try:
        found = from_table(Agreement, json.loads(note), where="its note")
    except (ValueError, TypeError, RecursionError, ConfigError) as error:
        raise MaskError(
            f"{journal.file.name} is damaged: {error}. Remove it, and run the same command again"
        ) from error
    if processes.is_main:
        log.info(found.describe())
    return found


def _fill(
    journal: Journal,
    paths: Sequence[str],
    done: set[int],
    source: MaskSource,
    processes: Processes,
    progress: Progress,
) -> None:
    """Appends this process's share of the masks that are missing.

    The processes meet after each batch: none runs far ahead, and each knows how many are done.
    """
    finished, N = len(done), len(paths)
    if done and processes.is_main:
        log.info("resuming with %d of %d masks done", finished, N)
    progress(finished, N)
    missing = [row for row in range(N) if row not in done]
    step = BATCH * processes.size
    for start in range(0, len(missing), step):
        rows = processes.shard(missing[start : start + step])
        part_maps = source.part_maps([paths[row] for row in rows])
        for count, (row, part_map) in enumerate(zip(rows, part_maps, strict=True), start=1):
            cells = stored_map(part_map, num_parts=len(source.parts))
            H, W = part_map.shape
            journal.append(Record(row, (H, W), zlib.compress(cells.tobytes(), level=9)))
            progress(finished + count, N)
        finished += sum(processes.gather(len(rows)))
        if processes.size > 1:
            progress(finished, N)
    journal.sync()
    processes.gather(None)  # every journal is complete


def _collect(path: Path, task: bytes) -> dict[int, Record]:
    """The records of all journals by row."""
    return {
        record.row: record for file in journal_paths(path) for record in read_records(file, task)
    }


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


def _hdf5(header: Header, paths: Sequence[str], records: Mapping[int, Record]) -> bytes:
    """The bytes of the finished file."""
    N = len(paths)
    names = np.array([name.encode() for name in paths])
    stored = sum(len(record.data) for record in records.values())
    room = stored + names.nbytes + 200 * N + (1 << 20)  # growing in steps takes minutes
    options = {"driver": "core", "backing_store": False, "block_size": room}
    with h5py.File("image", "w", libver=("v110", "v110"), **options) as file:  # a small index
        file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), np.int64(VERSION)
        for name, value in asdict(header).items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                file.attrs[name] = np.bytes_(text.encode() or b" ")
        text_type = h5py.string_dtype("utf-8", names.itemsize)
        file.create_dataset("paths", data=names.astype(text_type))
        shape, chunk = (N, *STORED_SIZE), (1, *STORED_SIZE)
        masks = file.create_dataset("masks", shape, np.uint8, chunks=chunk, compression="gzip")
        sizes = np.empty((N, 2), np.uint16)
        for row in range(N):
            sizes[row] = records[row].size
            masks.id.write_direct_chunk((row, 0, 0), records[row].data)
        file["sizes"] = sizes
        file.flush()
        image: bytes = file.id.get_file_image()
    return image
