"""Folders of images whose names tell identity and camera, as Market-1501 has them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from reidkit.errors import DataError
from reidkit.types import Sample

if TYPE_CHECKING:
    from reidkit.data.manifest import Manifest

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def read_pattern(manifest: Manifest, root: Path) -> dict[str, list[Sample]]:
    """Splits of a data set that names its images by `manifest.pattern`.

    Files that are not images (Thumbs.db, .mat) and hidden files are passed over.

    Raises:
        DataError: if a split's folder is missing or an image's name does not fit the pattern.
    """
    pattern = re.compile(manifest.pattern)
    splits: dict[str, list[Sample]] = {}
    for name, split in manifest.splits.items():
        folder = root / split.folder
        if not folder.is_dir():
            raise DataError(f"{manifest.name}: [{name}] missing folder {folder}")
        samples, strangers = [], []
        for path in list_images(folder):
            match = pattern.fullmatch(path.rpartition("/")[2])
            if match is None:
                strangers.append(path)
                continue
            relative = path if split.folder == "." else f"{split.folder}/{path}"
            role = manifest.roles.get(match["pid"], "person")
            samples.append(Sample(relative, int(match["pid"]), int(match["camid"]), role))
        if strangers:
            raise DataError(
                f"{manifest.name}: [{name}] {len(strangers)} image names under {folder} do not fit "
                f"the pattern {manifest.pattern}, the first is {strangers[0]}"
            )
        splits[name] = samples
    return splits


def list_images(folder: Path) -> list[str]:
    """Paths of all images under `folder`, relative to it, with forward slashes, sorted."""
    found = []
    for parent, _, names in os.walk(folder):
        prefix = Path(parent).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        found += [
            prefix + name
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)
