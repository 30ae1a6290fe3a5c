"""Renders visits to files in parallel; the bytes do not depend on the number of workers.

A layout plans `Visit`s. Each has its own random generators, seeded by the data set's seed and the
visit's key, so order and processes do not matter.
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

from reidkit.device import usable_cores
from reidkit.errors import DataError
from reidkit.synthetic.camera import make_cameras
from reidkit.synthetic.moment import annotated_box, bad_box
from reidkit.synthetic.render import render
from reidkit.synthetic.walk import image_moments, video_moments, walk
from reidkit.synthetic.wardrobe import Identity, sample_identity

Progress = Callable[[int, int], None]

ShotKind = Literal["person", "annotated", "fragment", "background", "other"]
"""person: a detector's box; annotated: a manual box; fragment: a part of the person, or mostly
background; background: a false detection; other: another person."""


@dataclass(frozen=True)
class Shot:
    """One image to render.

    Attributes:
        image, labels: paths relative to the data set's root; None writes no label map.
        size: (height, width) in pixels; None keeps the rendered size.
    """

    image: str
    labels: str | None
    kind: ShotKind = "person"
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Visit:
    """One person's walk past one camera.

    Attributes:
        person: number of the identity, which seeds it; unique within the data set.
        camera: index, from 1.
        key: numbers that seed the visit; unique within the data set.
        video: the shots are consecutive frames, not images some time apart.
    """

    person: int
    camera: int
    key: tuple[int, ...]
    shots: tuple[Shot, ...]
    video: bool = False


def identity_of(seed: int, person: int) -> Identity:
    """The identity with this number in the data set with this seed."""
    return sample_identity(np.random.default_rng([seed, 3, person]))


def render_visit(
    visit: Visit, *, seed: int, cameras: int
) -> Iterator[tuple[Shot, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yields each shot with its image uint8 [h, w, 3] and labels uint8 [h, w]."""
    camera = make_cameras(seed, cameras)[visit.camera - 1]
    rng = np.random.default_rng([seed, 4, *visit.key])
    identity = identity_of(seed, visit.person)
    moments = video_moments(camera, rng) if visit.video else image_moments(camera, rng)
    # A tracker that follows the wrong person follows the same one for a while.
    other_rng = np.random.default_rng([seed, 5, *visit.key])
    other, other_moments = sample_identity(other_rng), walk(camera, other_rng)
    for shot, moment in zip(visit.shots, moments, strict=False):
        person = identity
        if shot.kind == "annotated":
            moment = replace(moment, box=annotated_box(rng))
        elif shot.kind == "fragment":
            moment = replace(moment, box=bad_box(rng))
        elif shot.kind == "background":
            moment = replace(moment, empty=True, box=bad_box(rng))
        elif shot.kind == "other":
            moment, person = replace(moment, pose=next(other_moments).pose), other
        rgb, labels = render(person, camera, moment, rng)
        if shot.size is not None:
            rgb, labels = (
                np.asarray(Image.fromarray(pixels).resize(shot.size[::-1], by))
                for pixels, by in (
                    (rgb, Image.Resampling.BICUBIC),
                    (labels, Image.Resampling.NEAREST),
                )
            )
        yield shot, rgb, labels


def write_visits(
    root: Path,
    visits: Sequence[Visit],
    *,
    seed: int,
    cameras: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Renders all visits and writes their files under `root`; the folders must exist.

    Args:
        on_progress: called with (images written, total), in this process.
        workers: number of processes; 1 renders in this process, None chooses by the number of
            images and cores.
    Raises:
        DataError: if a file cannot be written.
    """
    total = sum(len(visit.shots) for visit in visits)
    processes = _processes(workers, total)
    batches = [visits[start : start + 8] for start in range(0, len(visits), 8)]
    done = 0
    try:
        for count in _write_batches(root, batches, seed, cameras, processes):
            done += count
            if on_progress is not None:
                on_progress(done, total)
    except OSError as error:
        where = error.filename or root
        raise DataError(
            f"{where}: cannot write: {error.strerror or error}. "
            "Free disk space or choose another folder, then run the command again."
        ) from error
    except BrokenProcessPool as error:
        raise DataError(
            f"{root}: a worker process was killed after {done} of {total} images, probably out "
            "of memory. Run the command again with less memory in use."
        ) from error


def _write_batches(
    root: Path, batches: Sequence[Sequence[Visit]], seed: int, cameras: int, processes: int
) -> Iterator[int]:
    if processes == 1:
        for batch in batches:
            yield _write_batch(root, batch, seed, cameras)
        return
    # spawn, because forking a process with threads (torch's) can deadlock
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_exit_with_parent)
    try:
        futures = [pool.submit(_write_batch, root, batch, seed, cameras) for batch in batches]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _exit_with_parent() -> None:
    """Ends this worker when its parent is killed; the pool would let it wait forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_batch(root: Path, visits: Sequence[Visit], seed: int, cameras: int) -> int:
    count = 0
    for visit in visits:
        quality = make_cameras(seed, cameras)[visit.camera - 1].quality
        for shot, rgb, labels in render_visit(visit, seed=seed, cameras=cameras):
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
    except OSError as error:  # the error of a full disk does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error


def encode(pixels: NDArray[np.uint8], kind: Literal["JPEG", "PNG"], **options: int) -> bytes:
    """The image file as bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _processes(workers: int | None, images: int) -> int:
    if workers is None:
        workers = images // 250 + 1  # starting a process takes as long as about 60 images
    return max(1, min(workers, usable_cores()))
