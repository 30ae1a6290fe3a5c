"""Custom data sets: a CSV file with the columns split,path,pid,camid,tracklet,frame."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from reidkit.data.readers.rows import Row, is_file, whole_number
from reidkit.data.schema import Manifest
from reidkit.types import SPLITS

REQUIRED = ("split", "path", "pid")


def read_csv(manifest: Manifest, folder: Path, problems: list[str]) -> Iterator[Row]:
    """One line per image. `pid` and `camid` are any text, `path` is relative to the manifest's
    `root` (default: the folder), or absolute and below it.

    `camid` is required unless the manifest has cameras = "none". `tracklet` and `frame` are
    optional; a line without a tracklet is a single image.
    """
    file, root = folder / manifest.table, folder / manifest.root
    if not file.is_file():
        problems.append(f"missing file {file}")
        return
    if not root.is_dir():
        problems.append(f'the manifest has root = "{manifest.root}", and {root} is not a folder')
        return
    try:
        yield from _rows(manifest, folder, problems)
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{file} is not a CSV file in UTF-8: {error}")


def _rows(manifest: Manifest, folder: Path, problems: list[str]) -> Iterator[Row]:
    file, root = folder / manifest.table, folder / manifest.root
    with file.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.DictReader(text)
        columns = reader.fieldnames or []
        required = REQUIRED if manifest.cameras == "none" else (*REQUIRED, "camid")
        missing = [name for name in required if name not in columns]
        if missing:
            problems.append(
                f"{file} has no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}"
                + ('. If cameras are unknown, set cameras = "none"' if "camid" in missing else "")
            )
            return
        absent, outside = [], []
        for number, line in enumerate(reader, start=2):
            values = {key: (value or "").strip() for key, value in line.items() if key}
            split, frame = values["split"], whole_number(values.get("frame") or "0")
            path = below(root, values["path"])
            tracklet = values.get("tracklet", "")
            if split not in SPLITS or not values["pid"] or frame is None or frame < 0:
                problems.append(
                    f"{file}, line {number}: expected a split ({', '.join(SPLITS)}), a pid, and a "
                    f"whole number for frame; got {split!r}, {values['pid']!r}, "
                    f"{values.get('frame')!r}"
                )
                continue
            if path is None:
                outside.append(values["path"])
                continue
            if not is_file(root / path):
                absent.append(path)
                continue
            camid = "0" if manifest.cameras == "none" else values["camid"]
            if tracklet:
                tracklet = "\0".join((values["pid"], camid, tracklet))
            yield Row(split, path, values["pid"], camid, tracklet, frame)
    if absent:
        problems.append(f"{len(absent)} images of {file} are missing, the first is {absent[0]}")
    if outside:
        problems.append(
            f"{len(outside)} paths of {file} point outside {root}, the first is {outside[0]}. "
            'Set root = "FOLDER" in the manifest to the folder of the images'
        )


def below(root: Path, path: str) -> str | None:
    """A path relative to `root`, with forward slashes; None if it is not below it."""
    for base in (root.absolute(), root.resolve()) if Path(path).is_absolute() else ():
        if Path(path).is_relative_to(base):
            path = Path(path).relative_to(base).as_posix()
            break
    parts = PurePosixPath(path)
    return None if Path(path).is_absolute() or ".." in parts.parts else path
