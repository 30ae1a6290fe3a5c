"""Rows, one per image, as every reader yields them, and their conversion to splits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.types import Item, Role, Sample, Tracklet

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MAX_PROBLEMS = 12
"""Problems listed in one message; further ones are only counted."""


class Row(NamedTuple):
    """One image of a split. Identity and camera are text until all rows are known.

    Attributes:
        path: relative to the data set's root, with forward slashes.
        tracklet: rows of a split with the same value form one tracklet; "": a single image.
        frame: position in the tracklet, in time order.
    """

    split: str
    path: str
    pid: str
    camid: str
    tracklet: str = ""
    frame: int = 0


def build_splits(
    rows: Iterable[Row], *, roles: Mapping[str, Role], problems: list[str]
) -> dict[str, list[Item]]:
    """Samples and tracklets of every split, sorted by path.

    Ids that are all whole numbers of at most 18 digits are kept; otherwise they are numbered 0, 1,
    ... in the order of the sorted texts. The same holds for cameras. A tracklet with several ids or
    cameras is added to `problems`.
    """
    rows = list(rows)
    pids = _numbers({row.pid for row in rows}, reserved=roles)
    camids = _numbers({row.camid for row in rows})
    splits: dict[str, list[Item]] = {}
    tracklets: dict[tuple[str, str], list[Row]] = {}

    def sample(row: Row) -> Sample:
        return Sample(row.path, pids[row.pid], camids[row.camid], roles.get(row.pid, "person"))

    for row in rows:
        if row.tracklet:
            tracklets.setdefault((row.split, row.tracklet), []).append(row)
        else:
            splits.setdefault(row.split, []).append(sample(row))
    for (split, name), frames in tracklets.items():
        if len({(row.pid, row.camid) for row in frames}) > 1:
            problems.append(f"[{split}] tracklet {name} has frames of several ids or cameras")
        frames.sort(key=lambda row: (row.frame, row.path))
        splits.setdefault(split, []).append(Tracklet(tuple(sample(row) for row in frames)))
    return {name: sorted(items, key=lambda item: item.path) for name, items in splits.items()}


def _numbers(texts: set[str], *, reserved: Mapping[str, Role] | None = None) -> dict[str, int]:
    reserved = reserved or {}
    numbers = {text: whole_number(text) for text in texts}
    if None not in numbers.values():
        return {text: number for text, number in numbers.items() if number is not None}
    ordered = [*sorted(texts - set(reserved)), *sorted(texts & set(reserved))]
    return {text: number for number, text in enumerate(ordered)}


def whole_number(text: str) -> int | None:
    """The number that a text of at most 18 digits stands for, which fits into an int64."""
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


def whole_numbers(values: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers of any type as int64.

    Raises:
        ValueError: one is not whole, or does not have at most 18 digits.
    """
    if values.dtype.kind not in "iuf" or not (np.abs(values.astype(np.float64)) < 1e18).all():
        raise ValueError("it contains more than whole numbers")
    integers = values.astype(np.int64)
    if (integers != values).any():
        raise ValueError("it contains numbers that are not whole")
    return integers


def is_file(path: Path) -> bool:
    """Whether there is a file; False also for names that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_lines(path: Path, problems: list[str]) -> list[str]:
    """The lines of a UTF-8 text file; none, and a problem, if it is no such file."""
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path} cannot be read as text in UTF-8: {error}")
        return []


def raise_problems(name: str, problems: Sequence[str]) -> None:
    """Raises a DataError that lists the problems, one line each, if there are any."""
    if not problems:
        return
    if len(problems) == 1:
        raise DataError(f"{name}: {problems[0]}")
    more = len(problems) - MAX_PROBLEMS
    lines = [*problems[:MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
    raise DataError(f"{name}: {len(problems)} problems\n  " + "\n  ".join(lines))


def list_images(folder: Path) -> list[str]:
    """Sorted paths of all images under `folder`, relative to it, with forward slashes.

    Raises:
        DataError: a name is not UTF-8, as all files that store names are.
    """
    found = []
    for parent, _, names in os.walk(folder):
        prefix = Path(parent).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        found += [
            prefix + name
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    for name in found:
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise DataError(f"{folder}: the name {name!a} is not UTF-8. Rename the file")
    return sorted(found)
