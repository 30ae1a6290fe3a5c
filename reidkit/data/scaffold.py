"""Manifest and CSV for a folder of your own images (`reidkit datasets init`)."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path

from reidkit.data.readers.rows import list_images
from reidkit.errors import DataError
from reidkit.files import atomic
from reidkit.types import SPLITS

COLUMNS = ("split", "path", "pid", "camid", "tracklet", "frame")
TABLE, MANIFEST = "data.csv", "manifest.toml"


def init_dataset(folder: Path, *, cameras: str, tracklets: bool = False, seed: int = 0) -> None:
    """Writes manifest.toml and data.csv for a folder with one subfolder per person.

    `folder` contains <person>/<images>, or train/, query/ and gallery/ with such subfolders; they
    may be nested deeper. Without split folders, a random half of the persons is the training split;
    of the others the first image of each camera is a query, the rest is the gallery.

    Args:
        cameras: "none", or a regular expression whose one group is the camera in a path.
        tracklets: each innermost folder is a tracklet, its frames sorted by name.
        seed: of the division into training and test persons.
    Raises:
        DataError: if the folder has no such images, or has a manifest already.
    """
    if (folder / MANIFEST).exists() or (folder / TABLE).exists():
        raise DataError(f"{folder} already has a {MANIFEST} or {TABLE}. Edit or remove it first")
    rows = [_row(path, cameras, tracklets, folder) for path in list_images(folder)]
    if not rows:
        raise DataError(
            f"found no images under {folder}. Expected one folder per person: {folder}/NAME/*.jpg"
        )
    if not any(row["split"] for row in rows):
        _divide(rows, seed)
    camids = {row["camid"] for row in rows}
    with atomic(folder / TABLE) as partial, partial.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with atomic(folder / MANIFEST) as partial:
        partial.write_text(_manifest(folder.resolve().name, rows, cameras, len(camids)), "utf-8")


def _row(path: str, cameras: str, tracklets: bool, folder: Path) -> dict[str, str]:
    parts = path.split("/")
    split = parts.pop(0) if parts[0] in SPLITS else ""
    if len(parts) < 2:
        raise DataError(
            f"{folder / path} is not in a person's folder. Expected {folder}/NAME/*.jpg"
        )
    camid = "" if cameras == "none" else _camera(path, cameras)
    tracklet = "/".join(parts[1:-1]) or parts[0] if tracklets else ""
    return dict(zip(COLUMNS, (split, path, parts[0], camid, tracklet, ""), strict=True))


def _camera(path: str, pattern: str) -> str:
    try:
        match = re.search(pattern, path)
    except re.error as error:
        raise DataError(f"--cameras {pattern} is not a regular expression: {error}") from error
    if match is None or not match.groups():
        raise DataError(
            f"--cameras {pattern} finds no camera in {path}. Use an expression with one group, "
            "such as 'cam(\\w+)', or --cameras none if cameras are unknown"
        )
    return match[1]


def _divide(rows: list[dict[str, str]], seed: int) -> None:
    """Assigns splits: persons to train or test, then queries; every query has a match."""
    persons = sorted({row["pid"] for row in rows})
    train = set(random.Random(seed).sample(persons, len(persons) // 2))
    seen: dict[str, dict[str, dict[str, None]]] = {}  # person -> camera -> images or tracklets
    for row in rows:
        cameras = seen.setdefault(row["pid"], {})
        cameras.setdefault(row["camid"], {})[row["tracklet"] or row["path"]] = None
    queries = {
        (pid, camid, unit)
        for pid in persons
        if pid not in train
        for camid, unit in _queries({c: list(units) for c, units in seen[pid].items()})
    }
    if not queries:
        raise DataError(
            "no test person has images from two cameras, so there are no queries. "
            "Use --cameras none if cameras are unknown"
        )
    for row in rows:
        unit = (row["pid"], row["camid"], row["tracklet"] or row["path"])
        is_query = unit in queries
        row["split"] = "train" if row["pid"] in train else "query" if is_query else "gallery"


def _queries(units: dict[str, list[str]]) -> list[tuple[str, str]]:
    """One person's queries: the first unit of every camera with several units; if no camera has
    several, that of the first camera."""
    if list(units) == [""]:
        return [("", units[""][0])] if len(units[""]) > 1 else []
    if len(units) == 1:
        return []
    firsts = [(camid, found[0]) for camid, found in units.items() if len(found) > 1]
    return firsts or [next((camid, found[0]) for camid, found in units.items())]


def _manifest(name: str, rows: list[dict[str, str]], cameras: str, count: int) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name) or "mine"
    lines = [
        "# Written by `reidkit datasets init`; edit as needed. All keys: docs/datasets.md.",
        "format = 1",
        f'name = "{safe}"            # in the names of masks and runs',
        'title = ""',
        'licence = ""               # who owns the images, and who may use them',
        'reader = "csv"',
        f'table = "{TABLE}"          # {",".join(COLUMNS)}',
    ]
    if cameras == "none":
        lines += [
            'cameras = "none"           # cameras are unknown, therefore',
            'protocol = "none"          # nothing is removed from rankings',
        ]
    else:
        lines += [
            f"cameras = {count}",
            'protocol = "market"        # same person and camera is removed from a ranking',
        ]
    lines += ["", "# Current counts; `reidkit datasets verify` compares them with the files."]
    for split in SPLITS:
        chosen = [row for row in rows if row["split"] == split]
        if chosen:
            ids = len({row["pid"] for row in chosen})
            lines += [f"[splits.{split}]", f"images = {len(chosen)}", f"ids = {ids}", ""]
    return "\n".join(lines)
