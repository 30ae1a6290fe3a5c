"""A folder of the label maps that a parser gave: `--keep-labels`."""

# H W pixels

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from reidkit.errors import DataError
from reidkit.files import atomic, check_regular
from reidkit.masks.labels import Labels, LabelSet

DESCRIPTION = "labels.json"
"""The file in the folder that says which parser its maps are of."""


@dataclass(frozen=True)
class LabelFolder:
    """Label maps `a/b/name.png` of images `a/b/name.jpg`, at the size of the upright image.

    The maps are palette images where the label set has a palette, and single-channel otherwise;
    both hold label numbers. `open_label_folder` checks the folder first.
    """

    path: Path
    labels: LabelSet

    def file(self, image: str) -> Path:
        """The label map of an image, given by its path relative to the data set's root."""
        return self.path / PurePosixPath(image).with_suffix(".png")

    def save(self, image: str, label_map: Labels) -> None:
        """Writes the label map uint8 [H, W] of an image, atomically.

        Raises:
            ReidkitError: if the disk is full or the folder cannot be written to.
        """
        picture = Image.fromarray(label_map)
        if self.labels.palette:
            picture.putpalette([level for colour in self.labels.palette for level in colour])
        with atomic(self.file(image)) as partial:
            picture.save(partial, format="PNG")

    def missing(self, images: Sequence[str]) -> list[str]:
        """Those of `images` that have no label map here."""
        return [image for image in images if not self.file(image).exists()]


def open_label_folder(
    path: Path, *, labels: LabelSet, parser: str, key: str, images: Sequence[str]
) -> LabelFolder:
    """The folder `path` for label maps of a parser, new, empty, or begun with the same parser.

    Args:
        labels: of the parser.
        parser: its name, for people.
        key: the parser's, which its maps are recognised by.
        images: that will have label maps here.

    Raises:
        DataError: if the folder holds anything else, or two images would have the same label map.
    """
    folder = LabelFolder(path, labels)
    owner: dict[Path, str] = {}
    for image in images:
        if owner.setdefault(folder.file(image), image) != image:
            raise DataError(
                f"--keep-labels {path}: {owner[folder.file(image)]} and {image} would have the same"
                " label map; rename one of them"
            )
    description = path / DESCRIPTION
    check_regular(description, DataError)
    if description.exists():
        try:
            stored = json.loads(description.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            stored = None
        if not isinstance(stored, dict) or stored.get("key") != key:
            raise DataError(
                f"--keep-labels {path} holds label maps of another parser, procedure or precision."
                " Delete it, or choose another folder"
            )
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(
            f"--keep-labels {path} is not an empty folder and has no {DESCRIPTION}. Choose a new"
            " folder"
        )
    else:
        facts = {"parser": parser, "label_set": labels.name, "labels": labels.names, "key": key}
        with atomic(description) as partial:
            partial.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    return folder
