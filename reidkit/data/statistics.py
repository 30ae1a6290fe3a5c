"""What a data set is like: cameras, sizes, tracklet lengths, images that train and test share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reidkit.data.checks import frames
from reidkit.files import sha256
from reidkit.image import image_size
from reidkit.types import Dataset, Tracklet

SPLITS = ("train", "query", "gallery")


@dataclass(frozen=True)
class Spread:
    """Least, median and most of a number."""

    least: int
    median: int
    most: int


@dataclass(frozen=True)
class Statistics:
    """Attributes:
    images, ids: per split and camera: {split: {camera: number}}.
    heights, widths: of all images, in pixels.
    frames: length of tracklets per split that has any.
    twins: groups of paths in train and test whose files are the same bytes.
    """

    images: dict[str, dict[int, int]]
    ids: dict[str, dict[int, int]]
    heights: Spread
    widths: Spread
    frames: dict[str, Spread]
    twins: list[list[str]]


def measure(
    dataset: Dataset, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Statistics:
    """Opens every image's header; hashes files of equal length only.

    Raises:
        DataError: at the first image that cannot be opened.
    """
    images: dict[str, dict[int, int]] = {}
    ids: dict[str, dict[int, int]] = {}
    lengths: dict[str, Spread] = {}
    for split in SPLITS:
        items = getattr(dataset, split)
        samples = [s for s in frames(items) if s.role == "person"]
        images[split] = dict(sorted(Counter(s.camid for s in samples).items()))
        people = {(s.camid, s.pid) for s in samples}
        ids[split] = dict(sorted(Counter(camid for camid, _ in people).items()))
        tracklets = [len(item.frames) for item in items if isinstance(item, Tracklet)]
        if tracklets:
            lengths[split] = _spread(tracklets)
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
        heights=_spread([height for height, _, _ in sizes]),
        widths=_spread([width for _, width, _ in sizes]),
        frames=lengths,
        twins=_twins(
            dataset.root, train, test, {p: s[2] for p, s in zip(paths, sizes, strict=True)}
        ),
    )


def _size(path: Path) -> tuple[int, int, int]:
    """Height, width, bytes."""
    return (*image_size(path), path.stat().st_size)


def _twins(root: Path, train: set[str], test: set[str], length: dict[str, int]) -> list[list[str]]:
    """Groups of paths of equal bytes, at least one of them in train and one in test."""

    def group(paths: Sequence[str], key: Callable[[str], object]) -> list[list[str]]:
        groups = defaultdict(list)
        for path in paths:
            groups[key(path)].append(path)
        return [g for g in groups.values() if not train.isdisjoint(g) and not test.isdisjoint(g)]

    same_length = group(sorted(train | test), length.__getitem__)
    return [g for paths in same_length for g in group(paths, lambda path: sha256(root / path))]


def _spread(numbers: list[int]) -> Spread:
    ordered = sorted(numbers)
    return Spread(ordered[0], ordered[len(ordered) // 2], ordered[-1])
