"""Part maps of a human parser that reidkit runs on the images."""

# H W pixels

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.image import read_image
from reidkit.masks.agreement import Agreement, agreement, confusion
from reidkit.masks.label_folder import LabelFolder
from reidkit.masks.labels import Grouping, Labels
from reidkit.masks.processes import Processes
from reidkit.masks.sources import WORKERS, digest

COMPARED = 50
"""Images on which a test procedure is compared with the original one."""

Pixels = NDArray[np.uint8]


class LabelParser(Protocol):
    """Images in, label maps out.

    Attributes:
        key: differs whenever the same image could get a different label map.
        batch: images per forward pass.
    """

    @property
    def key(self) -> str: ...
    @property
    def batch(self) -> int: ...

    def label_maps(self, images: Sequence[Pixels]) -> list[Labels]:
        """Labels uint8 [H, W] of RGB images uint8 [H, W, 3] of any sizes, in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class ParserSource:
    """A source that runs a parser on images, and may keep its label maps.

    Attributes:
        name: for people.
        parser: what runs.
        root: of the data set.
        groups: the parser's labels in parts.
        keep: where label maps are written, each before its part map is returned.
    """

    name: str
    parser: LabelParser
    root: Path
    groups: Grouping
    keep: LabelFolder | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        return self.groups.parts

    @property
    def grouping(self) -> dict[str, tuple[str, ...]]:
        return self.groups.describe()

    @property
    def key(self) -> str:
        return digest("parser", self.parser.key, self.grouping)

    def part_maps(self, images: Sequence[str]) -> Iterator[Labels]:
        return map(self.groups.part_map, self._label_maps(images))

    def keep_missing(self, images: Sequence[str], *, processes: Processes) -> None:
        """Keeps the label maps of those of `images` that have none yet: of a run that was begun
        without `keep`, or files that were deleted since.

        Args:
            processes: that share the images.
        """
        if self.keep:
            missing = processes.broadcast(self.keep.missing(images))
            for _ in self._label_maps(processes.shard(missing)):
                pass

    def _label_maps(self, images: Sequence[str]) -> Iterator[Labels]:
        """uint8 [H, W] for each image, in order, kept if they are to be. While the parser runs on
        a batch, the next one is read."""
        batch = self.parser.batch
        with ThreadPoolExecutor(WORKERS) as pool:

            def read(start: int) -> list[Future[Pixels]]:
                names = images[start : start + batch]
                return [pool.submit(self._read, name) for name in names]

            following = read(0)
            for start in range(0, len(images), batch):
                pixels = [image.result() for image in following]
                following = read(start + batch)
                label_maps = self.parser.label_maps(pixels)
                if self.keep:
                    names = images[start : start + batch]
                    list(pool.map(self.keep.save, names, label_maps))
                yield from label_maps

    def _read(self, name: str) -> Pixels:
        return np.asarray(read_image(self.root / name))

    def compare(
        self,
        original: LabelParser,
        images: Sequence[str],
        *,
        processes: Processes,
        progress: Callable[[int, int], None],
    ) -> Agreement:
        """How far this parser's label maps agree with those of `original`, the same network with
        its original test procedure, on the first COMPARED of `images`.

        Args:
            processes: that share the images.
            progress: called with (images compared, images in all) of this process.
        """
        names = images[:COMPARED]
        own = processes.shard(names)
        size = len(self.groups.labels.names)
        counts = np.zeros((size, size), np.int64)
        batch = self.parser.batch
        for start in range(0, len(own), batch):
            progress(start, len(own))
            pixels = [self._read(name) for name in own[start : start + batch]]
            both = zip(original.label_maps(pixels), self.parser.label_maps(pixels), strict=True)
            for reference, found in both:
                counts += confusion(reference, found, size=size)
        progress(len(own), len(own))
        total = np.sum(processes.gather(counts), axis=0)
        return agreement(total, self.groups, images=len(names))
