"""Folders of images whose names contain identity and camera (Market-1501, CUHK03-NP, folders per
class), and the same with a folder per tracklet (DukeMTMC-VideoReID).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from reidkit.data.expressions import compile_expression, match_name
from reidkit.data.readers.rows import Row, list_images, whole_number
from reidkit.data.schema import Manifest


def read_pattern(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    """Single images. The pattern must match an image's name, or, if it contains a slash, the path
    below the split's folder.

    Files that are not images (Thumbs.db, .mat) and hidden files are ignored. Images in a split's
    `distractors_in` folders are distractors, whatever their names.
    """
    for name, path, match in _matches(manifest, root, problems):
        yield Row(name, path, match["pid"], _camera(match))
    distractor = next((pid for pid, role in manifest.roles.items() if role == "distractor"), "0")
    for name, split in manifest.splits.items():
        for folder in split.distractors_in:
            if not (root / folder).is_dir():
                problems.append(f"[{name}] missing folder {root / folder}")
                continue
            for path in list_images(root / folder):
                yield Row(name, f"{folder}/{path}", distractor, "0")


def read_tracklets(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    """One folder per tracklet: <split>/<id>/<tracklet>/<images>, whose names also contain the frame
    number (group `frame`). A folder without images is a problem.
    """
    for name, path, match in _matches(manifest, root, problems):
        frame = whole_number(match["frame"] or "")
        if frame is None:
            problems.append(
                f"[{name}] {path}: the group frame of the pattern {manifest.pattern} matches "
                f"{match['frame']!r}, expected a whole number"
            )
            return
        yield Row(name, path, match["pid"], _camera(match), path.rpartition("/")[0], frame)
    for name, split in manifest.splits.items():
        folder = root / split.folder
        if not folder.is_dir():
            continue
        for tracklet in sorted(path for path in folder.glob("*/*") if path.is_dir()):
            if not list_images(tracklet):
                problems.append(f"[{name}] tracklet {tracklet} has no frames")


def _matches(
    manifest: Manifest, root: Path, problems: list[str]
) -> Iterator[tuple[str, str, re.Match[str]]]:
    """(split, path under the root, match) of every image whose name matches with an id."""
    pattern = compile_expression(manifest.pattern, where=f"{manifest.name}: pattern")
    for name, split in manifest.splits.items():
        folder = root / split.folder
        if not folder.is_dir():
            problems.append(f"[{name}] missing folder {folder}")
            continue
        mismatches = []
        for path in list_images(folder):
            match = match_name(
                pattern, path if "/" in manifest.pattern else path.rpartition("/")[2]
            )
            if match is None or not match["pid"]:
                mismatches.append(path)
                continue
            yield name, path if split.folder == "." else f"{split.folder}/{path}", match
        if mismatches:
            problems.append(
                f"[{name}] {len(mismatches)} image names under {folder} do not match "
                f"the pattern {manifest.pattern}, the first is {mismatches[0]}"
            )


def _camera(match: re.Match[str]) -> str:
    return match.groupdict().get("camid") or "0"
