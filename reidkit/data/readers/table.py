"""Custom data sets: a CSV file with the columns split,path,pid,camid,tracklet,frame."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from reidkit.data.readers.rows import Row
from reidkit.data.schema import Manifest
from reidkit.types import SPLITS

REQUIRED = ("split", "path", "pid")


def read_csv(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    """One line per image. `pid` and `camid` are any text, `path` is relative to the folder.

    `camid` is required unless the manifest has cameras = "none". `tracklet` and `frame` are
    optional; a line without a tracklet is a single image.
    """
    file = root / manifest.table
    if not file.is_file():
        problems.append(f"missing file {file}")
        return
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
            split, path, frame = values["split"], values["path"], values.get("frame") or "0"
            tracklet = values.get("tracklet", "")
            if split not in SPLITS or not values["pid"] or not frame.isdigit():
                problems.append(
                    f"{file}, line {number}: expected a split ({', '.join(SPLITS)}), a pid, and a "
                    f"whole number for frame; got {split!r}, {values['pid']!r}, {frame!r}"
                )
                continue
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                outside.append(path)
                continue
            if not (root / path).is_file():
                absent.append(path)
                continue
            camid = "0" if manifest.cameras == "none" else values["camid"]
            if tracklet:
                tracklet = "\0".join((values["pid"], camid, tracklet))
            yield Row(split, path, values["pid"], camid, tracklet, int(frame))
    if absent:
        problems.append(f"{len(absent)} images of {file} are missing, the first is {absent[0]}")
    if outside:
        problems.append(
            f"{len(outside)} paths of {file} point outside {root}, the first is {outside[0]}"
        )
