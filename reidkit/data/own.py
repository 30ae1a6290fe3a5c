"""`reidkit datasets init`: a manifest and a CSV for anybody's own folder of people."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path

from reidkit.data.readers.rows import list_images
from reidkit.errors import DataError
from reidkit.files import atomic

COLUMNS = ("split", "path", "pid", "camid", "tracklet", "frame")
SPLITS = ("train", "query", "gallery")
TABLE, MANIFEST = "data.csv", "manifest.toml"


def init_dataset(folder: Path, *, cameras: str, tracklets: bool = False, seed: int = 0) -> None:
    """Writes manifest.toml and data.csv into a folder per person.

    `folder` holds <person>/<images>, or train/, query/ and gallery/ with such folders in them;
    deeper folders are welcome. Without split folders, half of the people (drawn by `seed`) are for
    training; of the others the first image of each camera is a query, the rest is the gallery.

    Args:
        cameras: "none", or a regular expression with one group that finds the camera in a path.
        tracklets: the innermost folder of images is a tracklet, in the order of its names.
    Raises:
        DataError: if the folder holds no such images or has a manifest already.
    """
    if (folder / MANIFEST).exists() or (folder / TABLE).exists():
        raise DataError(f"{folder} has a {MANIFEST} or {TABLE} already. Edit or remove it first")
    rows = [_row(path, cameras, tracklets, folder) for path in list_images(folder)]
    if not rows:
        raise DataError(
            f"no image in a person's folder under {folder}. Expected {folder}/NAME/*.jpg"
        )
    if not any(row["split"] for row in rows):
        _divide(rows, seed)
    named = {row["camid"] for row in rows}
    with atomic(folder / TABLE) as partial, partial.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with atomic(folder / MANIFEST) as partial:
        partial.write_text(_manifest(folder.resolve().name, rows, cameras, len(named)), "utf-8")


def _row(path: str, cameras: str, tracklets: bool, folder: Path) -> dict[str, str]:
    parts = path.split("/")
    split = parts.pop(0) if parts[0] in SPLITS else ""
    if len(parts) < 2:
        raise DataError(f"{folder / path} lies in no person's folder. Expected {folder}/NAME/*.jpg")
    camid = "" if cameras == "none" else _camera(path, cameras)
    tracklet = "/".join(parts[1:-1]) or parts[0] if tracklets else ""
    return dict(zip(COLUMNS, (split, path, parts[0], camid, tracklet, ""), strict=True))


def _camera(path: str, pattern: str) -> str:
    try:
        match = re.search(pattern, path)
    except re.error as error:
        raise DataError(f"--cameras {pattern} is no regular expression: {error}") from error
    if match is None or not match.groups():
        raise DataError(
            f"--cameras {pattern} finds no camera in {path}. Write an expression with one group, "
            "as 'cam(\\w+)', or, if the cameras are not known, --cameras none"
        )
    return match[1]


def _divide(rows: list[dict[str, str]], seed: int) -> None:
    """Train and test by people, then queries; whoever is a query has a match in the gallery."""
    people = sorted({row["pid"] for row in rows})
    train = set(random.Random(seed).sample(people, len(people) // 2))
    seen: dict[str, dict[str, dict[str, None]]] = {}  # person -> camera -> images or tracklets
    for row in rows:
        cameras = seen.setdefault(row["pid"], {})
        cameras.setdefault(row["camid"], {})[row["tracklet"] or row["path"]] = None
    queries = {
        (pid, camid, unit)
        for pid in people
        if pid not in train
        for camid, unit in _queries({c: list(units) for c, units in seen[pid].items()})
    }
    if not queries:
        raise DataError(
            "no test person has two images by different cameras, so there is nothing to look for. "
            "Without known cameras: --cameras none"
        )
    for row in rows:
        unit = (row["pid"], row["camid"], row["tracklet"] or row["path"])
        is_query = unit in queries
        row["split"] = "train" if row["pid"] in train else "query" if is_query else "gallery"


def _queries(units: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Of one person: the first of every camera that has more; of one camera where none has."""
    if list(units) == [""]:
        return [("", units[""][0])] if len(units[""]) > 1 else []
    if len(units) == 1:
        return []
    firsts = [(camid, found[0]) for camid, found in units.items() if len(found) > 1]
    return firsts or [next((camid, found[0]) for camid, found in units.items())]


def _manifest(name: str, rows: list[dict[str, str]], cameras: str, count: int) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name) or "mine"
    lines = [
        "# Written by `reidkit datasets init`. Change what is wrong; more is in docs/datasets.md.",
        "format = 1",
        f'name = "{safe}"            # masks and runs are called after it',
        'title = ""',
        'licence = ""               # whose images are these, and who may use them?',
        'reader = "csv"',
        f'table = "{TABLE}"          # {",".join(COLUMNS)}',
    ]
    if cameras == "none":
        lines += [
            'cameras = "none"           # cameras are not known, so that',
            'protocol = "none"          # a ranking leaves nothing out; reports say so',
        ]
    else:
        lines += [
            f"cameras = {count}",
            'protocol = "market"        # same person by the same camera is left out of a ranking',
        ]
    lines += ["", "# What is there now; `reidkit datasets verify` compares."]
    for split in SPLITS:
        held = [row for row in rows if row["split"] == split]
        if held:
            ids = len({row["pid"] for row in held})
            lines += [f"[splits.{split}]", f"images = {len(held)}", f"ids = {ids}", ""]
    return "\n".join(lines)
