"""From a plan of visits to files: drawing in parallel, the same bytes with any number of workers.

A layout plans `Visit`s, the engine draws them. Every visit has random generators of its own, made
from the data set's seed and the visit's key, so order and processes do not matter.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.errors import DataError
from reidkit.synthetic.boxes import bad_box, drawn_box
from reidkit.synthetic.camera import make_cameras
from reidkit.synthetic.render import render
from reidkit.synthetic.walk import film, singles, walk
from reidkit.synthetic.wardrobe import Identity, sample_identity

Progress = Callable[[int, int], None]

ShotKind = Literal["person", "close", "fragment", "nobody", "stranger"]
"""person: a detector's box; close: a box drawn by hand; fragment: part of a person or far too much
around one; nobody: a false detection; stranger: somebody else."""


@dataclass(frozen=True)
class Shot:
    """One image to draw. Paths are relative to the data set's root; `size` is (height, width) in
    pixels, None as drawn."""

    image: str
    labels: str | None
    kind: ShotKind = "person"
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Visit:
    """One person's walk before one camera.

    Attributes:
        person: number that the identity is drawn from, unique within the data set.
        camera: index, from 1.
        key: numbers that tell this visit from every other of the data set.
        video: the shots are consecutive frames, not images some time apart.
    """

    person: int
    camera: int
    key: tuple[int, ...]
    shots: tuple[Shot, ...]
    video: bool = False


def identity_of(seed: int, person: int) -> Identity:
    """The person of that number in the data set of that seed."""
    return sample_identity(np.random.default_rng([seed, 3, person]))


def draw_visit(
    visit: Visit, *, seed: int, cameras: int
) -> Iterator[tuple[Shot, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yields each shot with its image uint8 [h, w, 3] and its labels uint8 [h, w]."""
    camera = make_cameras(seed, cameras)[visit.camera - 1]
    rng = np.random.default_rng([seed, 4, *visit.key])
    identity = identity_of(seed, visit.person)
    moments = film(camera, rng) if visit.video else singles(camera, rng)
    # A tracker that follows the wrong person follows the same one for a while.
    others = np.random.default_rng([seed, 5, *visit.key])
    stranger, strange_moments = sample_identity(others), walk(camera, others)
    for shot, moment in zip(visit.shots, moments, strict=False):
        now, who = moment, identity
        if shot.kind == "close":
            now = replace(now, box=drawn_box(rng))
        elif shot.kind == "fragment":
            now = replace(now, box=bad_box(rng))
        elif shot.kind == "nobody":
            now = replace(now, empty=True, box=bad_box(rng))
        elif shot.kind == "stranger":
            now, who = replace(now, pose=next(strange_moments).pose), stranger
        rgb, labels = render(who, camera, now, rng)
        if shot.size is not None:
            rgb, labels = (
                np.asarray(Image.fromarray(pixels).resize(shot.size[::-1], by))
                for pixels, by in (
                    (rgb, Image.Resampling.BICUBIC),
                    (labels, Image.Resampling.NEAREST),
                )
            )
        yield shot, rgb, labels


def draw_files(
    root: Path,
    visits: Sequence[Visit],
    *,
    seed: int,
    cameras: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Draws all visits into files under `root`; their folders must exist.

    Args:
        on_progress: called with (images written, images in all), in this process.
        workers: processes; None takes one per core, fewer for little work. 1 stays in this process.
    Raises:
        DataError: if a file cannot be written.
    """
    total = sum(len(visit.shots) for visit in visits)
    processes = _processes(workers, total)
    batches = [visits[start : start + 8] for start in range(0, len(visits), 8)]
    done = 0
    try:
        for count in _each(root, batches, seed, cameras, processes):
            done += count
            if on_progress is not None:
                on_progress(done, total)
    except OSError as error:
        where = error.filename or root
        raise DataError(
            f"{where}: cannot write: {error.strerror or error}. "
            "Make room or choose another folder, then repeat the command."
        ) from error
    except BrokenProcessPool as error:
        raise DataError(
            f"{root}: a drawing process was killed after {done} of {total} images "
            "(out of memory?). Repeat with fewer workers."
        ) from error


def _each(
    root: Path, batches: Sequence[Sequence[Visit]], seed: int, cameras: int, processes: int
) -> Iterator[int]:
    if processes == 1:
        for batch in batches:
            yield _draw_batch(root, batch, seed, cameras)
        return
    # Spawned, so that a caller's threads (torch has many) are not forked half alive.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_with_parent)
    try:
        futures = [pool.submit(_draw_batch, root, batch, seed, cameras) for batch in batches]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
    """Ends this worker when its parent is killed; the pool alone would let it wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _draw_batch(root: Path, visits: Sequence[Visit], seed: int, cameras: int) -> int:
    count = 0
    for visit in visits:
        quality = make_cameras(seed, cameras)[visit.camera - 1].quality
        for shot, rgb, labels in draw_visit(visit, seed=seed, cameras=cameras):
            if shot.image.endswith(".png"):
                _write(root / shot.image, encode(rgb, "PNG", compress_level=3))
            else:
                _write(root / shot.image, encode(rgb, "JPEG", quality=quality))
            if shot.labels is not None:
                _write(root / shot.labels, encode(labels, "PNG", compress_level=3))
            count += 1
    return count


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:  # a full disk is reported without the file's name
        raise OSError(error.errno, error.strerror, str(path)) from error


def encode(pixels: NDArray[np.uint8], kind: Literal["JPEG", "PNG"], **options: int) -> bytes:
    """The file's bytes: an image as JPEG, a label map as single-channel PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _processes(workers: int | None, images: int) -> int:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if workers is None:
        workers = images // 250 + 1  # starting a process costs as much as some sixty images
    return max(1, min(workers, cores))
