"""Which label file belongs to which image: by relative path, or else by file name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reidkit.errors import DataError


@dataclass(frozen=True)
class Matching:
    """The label files of a list of images.

    Attributes:
        folder: where the label files are.
        found: image path -> label file.
        missing: images without one.
        unused: number of label files without an image.
        by_name: how many of `found` were matched by file name alone.
    """

    folder: Path
    found: dict[str, Path]
    missing: tuple[str, ...]
    unused: int
    by_name: int

    def summary(self) -> str:
        """One line for the terminal."""
        by_path = len(self.found) - self.by_name
        return (
            f"{len(self.found):,} images matched ({by_path:,} by relative path,"
            f" {self.by_name:,} by file name), {len(self.missing):,} without a label map,"
            f" {self.unused:,} label maps without an image"
        )

    def complete(self) -> Matching:
        """Itself.

        Raises:
            DataError: if an image has no label map: how many, the first few, how matched.
        """
        if self.missing:
            first = ", ".join(self.missing[:3]) + (", …" if len(self.missing) > 3 else "")
            total = len(self.found) + len(self.missing)
            raise DataError(
                f"{len(self.missing):,} of {total:,} images have no label map under"
                f" {self.folder} (matched by relative path, then by file name; {self.unused:,}"
                f" label maps belong to no image). First: {first}"
            )
        return self


def match_labels(
    images: Sequence[str], folder: Path, *, stem: Callable[[str], str | None]
) -> Matching:
    """Finds each image's label file under `folder`, nested or flat.

    An image `a/b/name.jpg` is matched with `a/b/name.png`, or with fewer leading folders
    `b/name.png`, or else with the only label file called `name.png` in any folder.

    Args:
        images: paths relative to the data set's root.
        folder: searched with all its folders.
        stem: from a label file's name to the image's stem; None if it is no label file.

    Raises:
        DataError: if there is no such folder, or a match by name is ambiguous.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected a folder of label maps")
    by_path: dict[str, str] = {}
    by_name: dict[str, list[str]] = {}
    for relative in _files(folder):
        parent, _, name = relative.rpartition("/")
        key = stem(name)
        if key is None:
            continue
        by_path[f"{parent}/{key}" if parent else key] = relative
        by_name.setdefault(key, []).append(relative)
    found: dict[str, Path] = {}
    owner: dict[str, str] = {}
    missing = []
    named = 0
    for image in images:
        base = image.rpartition(".")[0] if "." in image.rpartition("/")[2] else image
        file = next((by_path[tail] for tail in _tails(base) if tail in by_path), None)
        if file is None:
            candidates = by_name.get(base.rpartition("/")[2], [])
            if len(candidates) > 1:
                raise DataError(
                    f"{len(candidates)} label maps under {folder} could belong to {image}:"
                    f" {candidates[0]}, {candidates[1]};"
                    " pass the folder of one split, or keep the images' folders"
                )
            file = candidates[0] if candidates else None
            named += file is not None
        if file is None:
            missing.append(image)
            continue
        if owner.setdefault(file, image) != image:
            raise DataError(
                f"{folder / file} could belong to {owner[file]} and to {image};"
                " keep the images' folders in the folder of label maps"
            )
        found[image] = folder / file
    unused = len(by_path) - len(owner)
    return Matching(folder, found, tuple(missing), unused, named)


def label_stem(name: str) -> str | None:
    """Stem of a label map; None for other files and for JPPNet's colour images beside it."""
    base, dot, suffix = name.rpartition(".")
    if not dot or suffix.lower() != "png" or base.endswith("_vis"):
        return None
    # some parsers append .png to the whole image name
    head, dot, image_suffix = base.rpartition(".")
    return head if dot and image_suffix.lower() in ("jpg", "jpeg", "png", "bmp") else base


def colour_stem(name: str) -> str | None:
    """Stem of a colour image, without JPPNet's `_vis`; None for other files."""
    base, dot, suffix = name.rpartition(".")
    if not dot or suffix.lower() not in ("png", "jpg", "jpeg", "bmp"):
        return None
    return base.removesuffix("_vis")


def _tails(base: str) -> Iterator[str]:
    """a/b/c, b/c: a bare name is not a relative path and is looked up separately."""
    yield base
    while base.count("/") > 1:
        base = base.partition("/")[2]
        yield base


def _files(folder: Path) -> list[str]:
    """All files below, relative, with forward slashes, sorted."""
    files = []
    for parent, _, names in os.walk(folder):
        prefix = Path(parent).relative_to(folder).as_posix()
        files += [name if prefix == "." else f"{prefix}/{name}" for name in names]
    return sorted(files)
