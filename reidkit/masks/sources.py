"""Where part maps come from: files of a human parser, or stripes where there is none.

A source turns image paths into part maps at the image's own size. The parser that reidkit runs
itself is in `parser.py`.
"""

# H W pixels

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reidkit.errors import DataError
from reidkit.masks.images import image_size, read_pixels
from reidkit.masks.lip import Grouping, Labels
from reidkit.masks.matching import Matching

WORKERS = min(4, os.cpu_count() or 1)


class MaskSource(Protocol):
    """Part maps of images.

    Attributes:
        name: what the store's `source` attribute says.
        parts: part k has index k + 1 in the maps.
        grouping: part -> what it is made of, for the store's `grouping` attribute.
        key: another one whenever the same image could get another map, so that a resumed run
            never mixes two.
    """

    @property
    def name(self) -> str: ...
    @property
    def parts(self) -> tuple[str, ...]: ...
    @property
    def grouping(self) -> dict[str, list[str]]: ...
    @property
    def key(self) -> str: ...

    def part_maps(self, images: Sequence[str]) -> Iterator[Labels]:
        """uint8 [H, W] for each image path (relative to the data set's root), in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """A source that reads one image's map at a time; several threads decode at once.

    Attributes:
        read: image path -> part map uint8 [H, W]; called from several threads.
    """

    name: str
    parts: tuple[str, ...]
    grouping: dict[str, list[str]]
    key: str
    read: Callable[[str], Labels]

    def part_maps(self, images: Sequence[str]) -> Iterator[Labels]:
        with ThreadPoolExecutor(WORKERS) as pool:
            yield from pool.map(self.read, images)


def index_maps(root: Path, matching: Matching, grouping: Grouping) -> FileSource:
    """Single-channel PNGs of label indices, as JPPNet and most parsers write them.

    A palette PNG counts by its indices, never by a colour or its luminance.

    Args:
        root: the data set's; images are opened for their size.
        matching: from `match_labels(..., stem=label_stem)`, complete.
    """

    def read(image: str) -> Labels:
        file = matching.found[image]
        label_map = read_pixels(
            file,
            modes=("L", "P"),
            expected="a single-channel map of label indices"
            " (for JPPNet's colour pictures give --source colours)",
        )
        highest = int(label_map.max(initial=0))
        if highest >= len(grouping.labels.names):
            raise DataError(
                f"{file}: label {highest}, expected at most {len(grouping.labels.names) - 1}"
                f" ({grouping.labels.name}); is it a map of label indices?"
            )
        _check_size(file, label_map, root / image)
        return grouping.part_map(label_map)

    return _labelled("index maps", read, matching, grouping)


def _labelled(
    name: str, read: Callable[[str], Labels], matching: Matching, grouping: Grouping
) -> FileSource:
    return FileSource(
        name=f"{name} ({grouping.labels.name})",
        parts=grouping.parts,
        grouping=grouping.describe(),
        key=digest(name, str(matching.folder.resolve()), grouping.describe()),
        read=read,
    )


def digest(*facts: object) -> str:
    """A short hash over JSON-able facts."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _check_size(file: Path, part_map: Labels, image: Path) -> None:
    size = image_size(image)
    if part_map.shape[:2] != size:
        (height, width), (h, w) = size, part_map.shape[:2]
        raise DataError(
            f"{file}: {h}x{w} pixels (height x width), but its image {image} has {height}x{width}"
        )
