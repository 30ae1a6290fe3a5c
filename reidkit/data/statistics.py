"""Statistics of a data set: cameras, image sizes, tracklet lengths, files in train and test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reidkit.files import sha256
from reidkit.image import image_size
from reidkit.types import SPLITS, Dataset, Tracklet, frames


@dataclass(frozen=True)
class Summary:
    """Distribution of a number."""

    min: int
    median: int
    max: int


@dataclass(frozen=True)
class Statistics:
    """Counts and distributions over all splits.

    Attributes:
        images, ids: {split: {camera: count}}, persons only.
        heights, widths: of all images, in pixels.
        frames: tracklet lengths of each split that has tracklets.
        duplicates: groups of paths with identical files, at least one in train and one in test.
    """

    images: dict[str, dict[int, int]]
    ids: dict[str, dict[int, int]]
    heights: Summary
    widths: Summary
    frames: dict[str, Summary]
    duplicates: list[list[str]]


def measure(
    dataset: Dataset, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Statistics:
    """Reads the header of every image; hashes only files of equal length.

    Raises:
        DataError: at the first image that cannot be opened.
    """
    images: dict[str, dict[int, int]] = {}
    ids: dict[str, dict[int, int]] = {}
    lengths: dict[str, Summary] = {}
    for split in SPLITS:
        items = getattr(dataset, split)
        samples = [s for s in frames(items) if s.role == "person"]
        images[split] = dict(sorted(Counter(s.camid for s in samples).items()))
        persons = {(s.camid, s.pid) for s in samples}
        ids[split] = dict(sorted(Counter(camid for camid, _ in persons).items()))
        tracklets = [len(item.frames) for item in items if isinstance(item, Tracklet)]
        if tracklets:
            lengths[split] = _summary(tracklets)
    train = {s.path for s in frames(dataset.train)}
    test = {s.path for s in frames((*dataset.query, *dataset.gallery))}
    paths = sorted(train | test)
    sizes = []
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda path: _size(dataset.root / path), paths)
        for done, size in enumerate(found, start=1):
            sizes.append(size)
            on_progress(done, len(paths))
    return Statistics(
        images=images,
        ids=ids,
        heights=_summary([height for height, _, _ in sizes]),
        widths=_summary([width for _, width, _ in sizes]),
        frames=lengths,
        duplicates=_duplicates(
            dataset.root, train, test, {p: s[2] for p, s in zip(paths, sizes, strict=True)}
        ),
    )


def _size(path: Path) -> tuple[int, int, int]:
    """Height, width, bytes."""
    return (*image_size(path), path.stat().st_size)


def _duplicates(
    root: Path, train: set[str], test: set[str], length: dict[str, int]
) -> list[list[str]]:
    """Groups of paths with equal bytes, at least one in train and one in test."""

    def group(paths: Sequence[str], key: Callable[[str], object]) -> list[list[str]]:
        groups = defaultdict(list)
        for path in paths:
            groups[key(path)].append(path)
        return [g for g in groups.values() if not train.isdisjoint(g) and not test.isdisjoint(g)]

    same_length = group(sorted(train | test), length.__getitem__)
    return [g for paths in same_length for g in group(paths, lambda path: sha256(root / path))]


def _summary(numbers: list[int]) -> Summary:
    ordered = sorted(numbers)
    return Summary(ordered[0], ordered[len(ordered) // 2], ordered[-1])
