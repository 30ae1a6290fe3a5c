"""Conversion of published records into images: cuhk-03.mat and CIFAR-100."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.data.readers.cuhk03 import TESTSETS
from reidkit.errors import DataError
from reidkit.files import atomic, temporary_folder, write_error

_CLASS_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")

Progress = Callable[[int, int], None]

MAX_IMAGE_BYTES = 1 << 26
"""Bytes of an image, or of a list of images, in cuhk-03.mat."""
CUHK03_OUTPUT = ("images_labeled", "images_detected", TESTSETS)
CIFAR_SPLITS = ("train", "test")


def unpack_records(folder: Path, *, on_progress: Progress) -> None:
    """Writes the images of the cuhk-03.mat or of CIFAR-100's records in `folder`, unless they are
    there already."""
    if (folder / "cuhk-03.mat").exists():
        if not all((folder / name).exists() for name in CUHK03_OUTPUT):
            unpack_cuhk03(folder, on_progress=on_progress)
    elif (folder / "train.bin").exists() and not all(
        (folder / split).is_dir() for split in CIFAR_SPLITS
    ):
        unpack_cifar100(folder, on_progress=on_progress)


def unpack_cuhk03(folder: Path, *, on_progress: Progress) -> None:
    """Writes images_labeled/, images_detected/ and testsets.csv from `folder`/cuhk-03.mat.

    Raises:
        DataError: if the file is missing or is not CUHK03's release.
    """
    import h5py

    source = folder / "cuhk-03.mat"
    if not source.is_file():
        raise DataError(f"missing file {source}. Put cuhk03_release/cuhk-03.mat there")
    try:
        with h5py.File(source, "r") as mat:
            cells = {
                boxes: [
                    (pair, person, number, reference)
                    for pair, camera_pair in enumerate(_values(mat, boxes)[0], start=1)
                    for number, row in enumerate(_values(mat, camera_pair), start=1)
                    for person, reference in enumerate(row, start=1)
                ]
                for boxes in ("labeled", "detected")
            }
            total = sum(map(len, cells.values()))
            done = 0
            for boxes, entries in cells.items():
                with _new_folder(folder / f"images_{boxes}") as partial:
                    for pair, person, number, reference in entries:
                        pixels = _values(mat, reference)
                        if pixels.ndim == 3:  # MATLAB's order: [3, W, H]
                            view = 1 if number <= 5 else 2
                            name = f"{pair}_{person:03d}_{view}_{number:02d}.png"
                            _save(pixels.T.copy(), partial / name)
                        done += 1
                        on_progress(done, total)
            splits = [_values(mat, reference).T for reference in _values(mat, "testsets")[0]]
    except (LookupError, OSError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(f"{source} is not CUHK03's release: {error}. Download it again") from error
    with atomic(folder / TESTSETS) as path, path.open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["split", "pair", "person"])
        for split, persons in enumerate(splits):
            writer.writerows([split, int(pair), int(person)] for pair, person in persons)


def _values(mat: Any, key: Any) -> NDArray[Any]:
    """The values of a data set of an HDF5 file, given by name or reference."""
    data = mat[key]
    if data.nbytes > MAX_IMAGE_BYTES:
        raise ValueError(f"{data.name} has {data.nbytes:,} bytes, at most {MAX_IMAGE_BYTES:,}")
    values: NDArray[Any] = data[()]
    return values


def unpack_cifar100(folder: Path, *, on_progress: Progress) -> None:
    """Writes train/<class>/<number>.png and test/<class>/<number>.png from `folder`'s train.bin and
    test.bin (a record is one byte coarse class, one byte fine class, 3,072 bytes of pixels).

    Raises:
        DataError: if a file is missing or truncated.
    """
    names_file = folder / "fine_label_names.txt"
    missing = [f for f in ("train.bin", "test.bin", names_file.name) if not (folder / f).is_file()]
    if missing:
        raise DataError(
            f"missing {', '.join(missing)} in {folder}. Unpack cifar-100-binary.tar.gz there (the "
            "binary version; the Python version contains pickles, which reidkit does not read)"
        )
    names = names_file.read_text("utf-8", errors="replace").split()
    if len(set(names)) < len(names) or not all(_CLASS_NAME.fullmatch(name) for name in names):
        raise DataError(f"{names_file} is not a list of different class names of a-z, 0-9, - and _")
    for split in CIFAR_SPLITS:
        data = np.fromfile(folder / f"{split}.bin", np.uint8)
        if len(data) == 0 or len(data) % 3074:
            raise DataError(f"{folder / split}.bin has {len(data)} bytes, expected N x 3,074")
        records = data.reshape(-1, 3074)
        if records[:, 1].max() >= len(names):
            raise DataError(f"{folder / split}.bin has a class above {len(names) - 1}")
        with _new_folder(folder / split) as partial:
            for name in names:
                (partial / name).mkdir()
            for number, record in enumerate(records):
                image = record[2:].reshape(3, 32, 32).transpose(1, 2, 0)
                _save(image, partial / names[record[1]] / f"{number:05d}.png")
                on_progress(number + 1, len(records))


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that replaces `target` at the end.

    Raises:
        ReidkitError: it cannot be written, or another process writes it.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        with temporary_folder(partial, target):
            yield partial
            shutil.rmtree(target, ignore_errors=True)
            partial.replace(target)
    except OSError as error:
        raise write_error(target, error) from error


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    """Writes an image [H, W, 3].

    Raises:
        ReidkitError: that is not possible.
    """
    try:
        Image.fromarray(pixels.copy()).save(path)
    except OSError as error:
        raise write_error(path, error) from error
