"""Where part maps come from: files of a human parser, or stripes where there is none.

A source turns image paths into part maps at the size of the upright image. Parsers that reidkit
runs itself are in `parsers/`.
"""

# H W pixels

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import ImageOps

from reidkit.device import usable_cores
from reidkit.errors import ConfigError, DataError
from reidkit.image import image_size, open_image, read_image
from reidkit.masks.labels import Grouping, Labels
from reidkit.masks.matching import Matching
from reidkit.types import PARTS

WORKERS = min(4, usable_cores())


class MaskSource(Protocol):
    """Part maps of images.

    Attributes:
        name: the store's `source` attribute.
        parts: part k has index k + 1 in the maps.
        grouping: part -> its labels or files, the store's `grouping` attribute.
        key: differs whenever the same image could get a different map, so that a resumed run
            never mixes two sources.
    """

    @property
    def name(self) -> str: ...
    @property
    def parts(self) -> tuple[str, ...]: ...
    @property
    def grouping(self) -> dict[str, tuple[str, ...]]: ...
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
    grouping: dict[str, tuple[str, ...]]
    key: str
    read: Callable[[str], Labels]

    def part_maps(self, images: Sequence[str]) -> Iterator[Labels]:
        with ThreadPoolExecutor(WORKERS) as pool:
            yield from pool.map(self.read, images)


def index_maps(root: Path, matching: Matching, grouping: Grouping) -> FileSource:
    """Single-channel PNGs of label indices, as JPPNet and most parsers write them.

    A palette PNG is read by its indices, never by a colour or its luminance.

    Args:
        root: the data set's; images are opened for their size.
        matching: from `match_labels(..., stem=label_stem)`, complete.
    """

    def read(image: str) -> Labels:
        file = matching.found[image]
        label_map = _read_plane(
            file,
            modes=("L", "P"),
            expected="a single-channel map of label indices"
            " (for JPPNet's colour images add --source colours)",
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


def colour_maps(root: Path, matching: Matching, grouping: Grouping) -> FileSource:
    """Colour images of label maps, such as JPPNet's *_vis.png, read by exact palette.

    Args:
        matching: from `match_labels(..., stem=colour_stem)`, complete.

    Raises:
        ConfigError: if no palette of the label set is known.
    """
    labels = grouping.labels
    if not labels.palette:
        raise ConfigError(
            f"label set {labels.name} has no palette to read colours by;"
            " write index maps, or pass a label set with a palette: --label-set FILE.toml"
        )
    codes = np.array([_code(*colour) for colour in labels.palette], np.uint32)
    order = codes.argsort()
    ordered = codes[order]

    def read(image: str) -> Labels:
        file = matching.found[image]
        with open_image(file) as image_file:
            if image_file.format == "JPEG":
                raise DataError(
                    f"{file}: a JPEG, whose colours are no longer the palette's; expected PNG."
                    " Run the parser again and keep its index maps"
                )
        rgb = np.asarray(read_image(file), np.uint32)
        found = _code(rgb[..., 0], rgb[..., 1], rgb[..., 2])
        place = np.minimum(ordered.searchsorted(found), len(ordered) - 1)
        strange = ordered[place] != found
        if strange.any():
            y, x = np.argwhere(strange)[0].tolist()
            raise DataError(
                f"{file}: {int(strange.sum())} pixels are not in {labels.name}'s palette,"
                f" first RGB {tuple(rgb[y, x].tolist())} at row {y}, column {x};"
                " was it resized, or once a JPEG?"
            )
        _check_size(file, found, root / image)
        part_map: Labels = grouping.table[order[place]]
        return part_map

    return _labelled("colour maps", read, matching, grouping)


FIVE_FILES = ("head", "upper_clothes", "lower_clothes", "shoes")
"""The authors' part files, in the order of PARTS; foreground.png beside them is never used."""


def five_files(root: Path, images: Sequence[str], folder: Path) -> FileSource:
    """The layout of the authors' release: seg_part4/<split>/<stem>/{head,...,foreground}.png.

    Each file is a mask of 0 and 255; `stem` is the image's name up to its first dot.

    Args:
        images: all that will be read.
        folder: seg_part4 itself, or the folder of one split in it.

    Raises:
        DataError: if there is no such folder, or an image has no part files in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected seg_part4 of the authors' layout")
    folders: dict[str, list[Path]] = {}
    for parent, _, names in os.walk(folder):
        if f"{FIVE_FILES[0]}.png" in names:
            folders.setdefault(Path(parent).name, []).append(Path(parent))
    found: dict[str, Path] = {}
    missing = []
    for image in images:
        candidates = folders.get(image.rpartition("/")[2].partition(".")[0], [])
        if len(candidates) > 1:
            raise DataError(
                f"{candidates[0]} and {candidates[1]} could both belong to {image};"
                " pass the folder of one split"
            )
        if candidates:
            found[image] = candidates[0]
        else:
            missing.append(image)
    Matching(
        folder, found, tuple(missing), unused=len(folders) - len(found), by_name=len(found)
    ).complete()

    def read(image: str) -> Labels:
        planes = []
        for name in FIVE_FILES:
            file = found[image] / f"{name}.png"
            mask = _read_plane(file, modes=("L", "P", "1"), expected="a mask of 0 and 255")
            mask = mask.astype(np.uint8) * 255 if mask.dtype == bool else mask
            highest = int(mask.max(initial=0))
            if 0 < highest < 128:
                raise DataError(f"{file}: values up to {highest}, expected a mask of 0 and 255")
            _check_size(file, mask, root / image)
            planes.append(mask >= 128)
        part_map = np.zeros(planes[0].shape, np.uint8)
        for index, plane in reversed(list(enumerate(planes, start=1))):
            part_map[plane] = index  # where two overlap, the upper part counts
        return part_map

    return FileSource(
        name="part files (seg_part4)",
        parts=PARTS,
        grouping={part: (f"{name}.png",) for part, name in zip(PARTS, FIVE_FILES, strict=True)},
        key=digest("five files", str(folder.resolve())),
        read=read,
    )


BODY = (
    # (top, bottom, breadth) of head, upper body, lower body, shoes, in shares of the standing
    # height from the top of the head down. Heights of chin .870, hip .530 and ankle .039 above
    # the floor, shoulders .259 and hips .191 broad: Drillis and Contini 1966 (Winter,
    # Biomechanics, fig. 4.1). Ours: the head two thirds as broad as tall, .03 for clothes about
    # the hips, feet a little apart.
    (0.000, 0.130, 0.09),
    (0.130, 0.470, 0.26),
    (0.470, 0.961, 0.22),
    (0.961, 1.000, 0.26),
)
BODY_MARGIN = 0.03
"""Of the box's height, above the head and below the feet."""


def stripes(root: Path) -> FileSource:
    """Bands where head, upper body, lower body and shoes of an upright person would be.

    A stand-in where there is no parser: nothing but the image's size is read.
    """

    @lru_cache(maxsize=128)
    def bands(height: int, width: int) -> Labels:
        part_map = np.zeros((height, width), np.uint8)
        figure = height * (1 - 2 * BODY_MARGIN)
        y = (np.arange(height) + 0.5 - BODY_MARGIN * height) / figure
        x = abs(np.arange(width) + 0.5 - width / 2) / figure
        for index, (top, bottom, breadth) in enumerate(BODY, start=1):
            rows, columns = (y >= top) & (y < bottom), x < breadth / 2
            part_map[rows[:, None] & columns[None, :]] = index
        return part_map

    return FileSource(
        name="stripes (body proportions; no parser)",
        parts=PARTS,
        grouping={
            part: (f"{top}-{bottom} of the height",)
            for part, (top, bottom, _) in zip(PARTS, BODY, strict=True)
        },
        key=digest("stripes", BODY, BODY_MARGIN),
        read=lambda image: bands(*image_size(root / image)),
    )


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


def _code(red: Any, green: Any, blue: Any) -> Any:
    """One number per colour."""
    return red << 16 | green << 8 | blue


def digest(*facts: object) -> str:
    """A short hash over JSON-able facts."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _read_plane(path: Path, *, modes: tuple[str, ...], expected: str) -> Labels:
    """Pixels uint8 or bool [H, W] as stored; a palette image gives its indices.

    Args:
        modes: Pillow modes that are read as they are.
        expected: for the message when the file has another mode.
    """
    with open_image(path) as image:
        if image.mode not in modes:
            raise DataError(f"{path}: an image of mode {image.mode}, expected {expected}")
        return np.asarray(ImageOps.exif_transpose(image))


def _check_size(file: Path, part_map: Labels, image: Path) -> None:
    size = image_size(image)
    if part_map.shape[:2] != size:
        (height, width), (h, w) = size, part_map.shape[:2]
        raise DataError(
            f"{file}: {h}x{w} pixels (height x width), but its image {image} has {height}x{width}"
            " when upright"
        )
