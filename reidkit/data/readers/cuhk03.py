"""CUHK03 (Li et al., CVPR 2014): the new 767/700 protocol and the classic 20 splits."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from reidkit.data.matlab import read_mat
from reidkit.data.readers.pattern import read_pattern
from reidkit.data.readers.rows import (
    Row,
    list_images,
    read_lines,
    whole_number,
    whole_numbers,
)
from reidkit.data.schema import Manifest
from reidkit.errors import DataError
from reidkit.types import SPLITS

TESTSETS = "testsets.csv"
"""The classic splits, written by `reidkit datasets unpack` from cuhk-03.mat."""


def read_cuhk03(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    """From the folders of CUHK03-NP (`bounding_box_train` etc.) if present, otherwise from
    images_labeled or images_detected and the protocol's .mat file.

    Names in the latter are <camera pair>_<person>_<view>_<image>.png; pair and person identify the
    person, the view is the camera.
    """
    if manifest.variant:
        yield from _classic(manifest, root, problems)
    elif (root / manifest.splits["train"].folder).is_dir():
        yield from read_pattern(manifest, root, problems)
    else:
        yield from _new_protocol(manifest, root, problems)


def _images(manifest: Manifest, root: Path, problems: list[str]) -> list[str]:
    folder = root / f"images_{manifest.boxes}"
    if folder.is_dir():
        return list_images(folder)
    if (root / "cuhk-03.mat").is_file():
        state, step = "is not unpacked", "Run"
    else:
        state, step = "is missing", "Put it there, then run"
    problems.append(
        f"cuhk-03.mat {state} in {root}. {step}: "
        f"reidkit datasets unpack {manifest.name.partition('@')[0]}"
    )
    return []


def _new_protocol(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    images = set(_images(manifest, root, problems))
    file = root / f"cuhk03_new_protocol_config_{manifest.boxes}.mat"
    if not file.is_file():
        problems.append(f"missing file {file}")
    if not images or not file.is_file():
        return
    try:
        table = read_mat(file)
        names = [str(name) for name in table["filelist"].reshape(-1)]
        pids, camids = (whole_numbers(table[k]).reshape(-1).tolist() for k in ("labels", "camId"))
        indices = {s: (whole_numbers(table[f"{s}_idx"]).reshape(-1) - 1).tolist() for s in SPLITS}
        if not len(names) == len(pids) == len(camids):
            raise ValueError(f"{len(names)} names, {len(pids)} ids, {len(camids)} cameras")
        if any(not 0 <= k < len(names) for chosen in indices.values() for k in chosen):
            raise ValueError(f"a split has images beyond its {len(names)} names")
    except DataError as error:
        problems.append(str(error))
        return
    except (KeyError, ValueError) as error:
        problems.append(f"{file} is not the protocol's .mat file: {error}")
        return
    for split, chosen in indices.items():
        absent = [names[k] for k in chosen if names[k] not in images]
        if absent:
            problems.append(
                f"[{split}] {len(absent)} images are not in {root}/images_{manifest.boxes}, the "
                f"first is {absent[0]}"
            )
            continue
        for k in chosen:
            path = f"images_{manifest.boxes}/{names[k]}"
            yield Row(split, path, str(pids[k]), str(camids[k]))


def _classic(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    """All images of the variant's 100 test persons are query and gallery; all others are train."""
    images = _images(manifest, root, problems)
    if not images:
        return
    if not (root / TESTSETS).is_file():
        problems.append(
            f"missing file {root / TESTSETS}. "
            f"Run: reidkit datasets unpack {manifest.name.partition('@')[0]}"
        )
        return
    rows = list(csv.reader(read_lines(root / TESTSETS, problems)))
    test = {(row[1], row[2]) for row in rows if len(row) == 3 and row[0] == manifest.variant}
    for image in images:
        parts = image.partition(".")[0].split("_")
        numbers = [whole_number(part) for part in parts]
        if len(parts) != 4 or None in numbers:
            problems.append(f"{image}: expected <pair>_<person>_<view>_<image>.png")
            continue
        pair, person, view, _ = (number for number in numbers if number is not None)
        path, pid = f"images_{manifest.boxes}/{image}", str(1000 * pair + person)
        is_test = (str(pair), str(person)) in test
        for split in ("query", "gallery") if is_test else ("train",):
            yield Row(split, path, pid, str(view))
