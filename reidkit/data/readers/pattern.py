"""Folders of images whose names tell identity and camera: Market-1501 and its like, CUHK03-NP
unpacked, folders per class; DukeMTMC-VideoReID with a folder per tracklet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from reidkit.data.readers.rows import Row, list_images
from reidkit.data.schema import Manifest


def read_pattern(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    """One image each. The pattern is matched with an image's name, or, where it holds a slash,
    with the image's path below the split's folder.

    Files that are not images (Thumbs.db, .mat) and hidden files are passed over. Images in a
    split's `distractors_in` folders are true negatives, whatever their names.
    """
    pattern = re.compile(manifest.pattern)
    for name, path, match in _matches(manifest, root, pattern, problems):
        yield Row(name, path, match["pid"], _camera(match))
    nobody = next((text for text, role in manifest.roles.items() if role == "distractor"), "0")
    for name, split in manifest.splits.items():
        for folder in split.distractors_in:
            if not (root / folder).is_dir():
                problems.append(f"[{name}] missing folder {root / folder}")
                continue
            for path in list_images(root / folder):
                yield Row(name, f"{folder}/{path}", nobody, "0")


def read_tracklets(manifest: Manifest, root: Path, problems: list[str]) -> Iterator[Row]:
    """The same with one folder per tracklet, as DukeMTMC-VideoReID has it: split/id/tracklet/frames
    whose names tell the frame's number too. A folder without an image is a problem.
    """
    pattern = re.compile(manifest.pattern)
    for name, path, match in _matches(manifest, root, pattern, problems):
        yield Row(
            name, path, match["pid"], _camera(match), path.rpartition("/")[0], int(match["frame"])
        )
    for name, split in manifest.splits.items():
        folder = root / split.folder
        if not folder.is_dir():
            continue
        for tracklet in sorted(path for path in folder.glob("*/*") if path.is_dir()):
            if not list_images(tracklet):
                problems.append(f"[{name}] tracklet {tracklet} has no frame")


def _matches(
    manifest: Manifest, root: Path, pattern: re.Pattern[str], problems: list[str]
) -> Iterator[tuple[str, str, re.Match[str]]]:
    """(split, path under the root, match) of every image that fits."""
    for name, split in manifest.splits.items():
        folder = root / split.folder
        if not folder.is_dir():
            problems.append(f"[{name}] missing folder {folder}")
            continue
        strangers = []
        for path in list_images(folder):
            match = pattern.fullmatch(path if "/" in manifest.pattern else path.rpartition("/")[2])
            if match is None:
                strangers.append(path)
                continue
            yield name, path if split.folder == "." else f"{split.folder}/{path}", match
        if strangers:
            problems.append(
                f"[{name}] {len(strangers)} image names under {folder} do not fit "
                f"the pattern {manifest.pattern}, the first is {strangers[0]}"
            )


def _camera(match: re.Match[str]) -> str:
    return match.groupdict().get("camid") or "0"
