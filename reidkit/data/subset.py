"""A small part of a data set for quick trials (`reidkit datasets subset`)."""

from __future__ import annotations

import csv
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from reidkit.config import to_toml
from reidkit.data.checks import unmatched_queries
from reidkit.data.manifest import LABELS, MANIFEST
from reidkit.data.scaffold import COLUMNS, TABLE
from reidkit.data.schema import Manifest
from reidkit.errors import DataError
from reidkit.files import atomic_folder
from reidkit.types import SPLITS, Dataset, Item, Role, Tracklet, frames

LinkKind = Literal["hard link", "symbolic link", "copy"]
Progress = Callable[[int, int], None]


def select_subset(
    dataset: Dataset, *, ids: int, images: int | None = None, seed: int = 0
) -> Dataset:
    """A part of a data set with the same protocol.

    Training identities and test identities with a query that has a match are sampled. Every sampled
    test identity keeps such a query and its match, and queries without a match are left out. Of
    junk, distractors and people without a query, the gallery keeps the same share as of the
    images of sampled identities.

    Args:
        ids: number of training identities and of test identities; the number of classes of a data
            set for classification.
        images: images (or tracklets) of an identity in each split, spread over its cameras; None:
            all.
        seed: of everything that is sampled.
    Raises:
        DataError: the data set has fewer identities.
    """
    rng = random.Random(seed)
    by_split = {split: _by_pid(getattr(dataset, split)) for split in SPLITS}
    train = by_split["train"]
    if dataset.task == "classification":
        pids = _sample(dataset, "classes", train, ids, rng)
        chosen = {
            split: [i for pid in pids for i in _spread(by_split[split].get(pid, []), images, rng)]
            for split in SPLITS
        }
        return _part(dataset, chosen["train"], chosen["query"], chosen["gallery"])
    train_items: list[Item] = []
    if train:
        pids = _sample(dataset, "training identities", train, ids, rng)
        train_items = [i for pid in pids for i in _spread(train[pid], images, rng)]
    query, gallery = _test_part(dataset, by_split["query"], by_split["gallery"], ids, images, rng)
    part = _part(dataset, train_items, query, gallery)
    unmatched = set(unmatched_queries(part))
    return _part(dataset, train_items, [q for q in query if q not in unmatched], gallery)


def _test_part(
    dataset: Dataset,
    queries: dict[int, list[Item]],
    gallery: dict[int, list[Item]],
    ids: int,
    images: int | None,
    rng: random.Random,
) -> tuple[list[Item], list[Item]]:
    """Query and gallery of sampled test identities, with others in proportion."""

    def matches(query: Item) -> list[Item]:
        """Its true matches in the gallery proper; MARS's protocol also ranks queries."""
        any_camera = dataset.protocol == "none"
        same_person = gallery.get(query.pid, [])
        return [item for item in same_person if any_camera or item.camid != query.camid]

    matched = {pid: [q for q in items if matches(q)] for pid, items in queries.items()}
    eligible = {pid: items for pid, items in matched.items() if items}
    if not eligible:
        return [], []
    query_items: list[Item] = []
    gallery_items: list[Item] = []
    pids = _sample(dataset, "test identities with a match", eligible, ids, rng)
    for pid in pids:
        kept = _spread(eligible[pid], images, rng)
        match = rng.choice(matches(kept[0]))
        others = [item for item in gallery[pid] if item is not match]
        query_items += kept
        rest = None if images is None else images - 1
        gallery_items += [match, *_spread(others, rest, rng)]
    share = len(gallery_items) / sum(len(gallery[pid]) for pid in eligible if pid in gallery)
    for role in ("junk", "distractor", "person"):
        others = [
            item
            for pid, items in gallery.items()
            if pid not in eligible
            for item in items
            if item.role == role
        ]
        gallery_items += rng.sample(others, math.ceil(share * len(others)))
    return query_items, gallery_items


def _by_pid(items: Iterable[Item]) -> dict[int, list[Item]]:
    found: dict[int, list[Item]] = {}
    for item in items:
        found.setdefault(item.pid, []).append(item)
    return found


def _sample(
    dataset: Dataset, what: str, pids: Iterable[int], count: int, rng: random.Random
) -> list[int]:
    found = sorted(pids)
    if count > len(found):
        raise DataError(
            f"{dataset.name} has {len(found):,} {what}, {count:,} were requested. "
            f"Use at most --ids {len(found)}"
        )
    return sorted(rng.sample(found, count))


def _spread(items: Sequence[Item], count: int | None, rng: random.Random) -> list[Item]:
    """Up to `count` random items, from every camera in turn; None: all of them."""
    if count is None:
        return list(items)
    cameras: dict[int, list[Item]] = {}
    for item in rng.sample(items, len(items)):
        cameras.setdefault(item.camid, []).append(item)
    turns = [(turn, camera) for camera, found in cameras.items() for turn in range(len(found))]
    return [cameras[camera][turn] for turn, camera in sorted(turns)[:count]]


def _part(
    dataset: Dataset, train: Sequence[Item], query: Sequence[Item], gallery: Sequence[Item]
) -> Dataset:
    train, query, gallery = (
        tuple(sorted(items, key=lambda item: item.path)) for items in (train, query, gallery)
    )
    return replace(dataset, train=train, query=query, gallery=gallery)


def write_subset(
    folder: Path,
    subset: Dataset,
    manifest: Manifest,
    *,
    title: str,
    name: str,
    on_progress: Progress,
) -> Counter[LinkKind]:
    """Writes a data set folder: links to the images and, if all training images have one, to label
    maps, data.csv and manifest.toml.

    The folder appears when it is complete.

    Args:
        folder: new or empty.
        subset: of `select_subset`.
        manifest: of the whole data set.
    Returns:
        number of files by how they were made.
    Raises:
        DataError: the folder is not empty.
        ReidkitError: it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not an empty folder. Choose another one: -o DIR")
    items = (*subset.train, *subset.query, *subset.gallery)
    paths = sorted({sample.path for sample in frames(items)})
    files = [(subset.root / path, path) for path in paths]
    labels = _labels(subset, paths)
    files += labels
    kinds: Counter[LinkKind] = Counter()
    with atomic_folder(folder) as partial:
        for done, (source, path) in enumerate(files, start=1):
            target = partial / path
            target.parent.mkdir(parents=True, exist_ok=True)
            kinds[_link(source.resolve(), target)] += 1
            on_progress(done, len(files))
        with (partial / TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for split in SPLITS:
                writer.writerows(_lines(split, getattr(subset, split)))
        table = _manifest_table(subset, manifest, name=name, title=title, has_labels=bool(labels))
        (partial / MANIFEST).write_text(to_toml(table), "utf-8")
    return kinds


def _link(source: Path, target: Path) -> LinkKind:
    """A hard link; where that is impossible a symbolic link, as the last resort a copy."""
    try:
        target.hardlink_to(source)
        return "hard link"
    except OSError:
        pass
    try:
        target.symlink_to(source)
        return "symbolic link"
    except OSError:
        shutil.copyfile(source, target)
        return "copy"


def _label_path(image: str) -> str:
    """Where the subset's label map of an image is."""
    return f"{LABELS}/{image.rpartition('.')[0]}.png"


def _labels(subset: Dataset, paths: Sequence[str]) -> list[tuple[Path, str]]:
    """(label map, its path in the subset); empty unless all training images have one."""
    if subset.labels is None:
        return []
    found = [
        (subset.labels / path.removeprefix(f"{LABELS}/"), path)
        for path in dict.fromkeys(map(_label_path, paths))
    ]
    found = [(source, path) for source, path in found if source.is_file()]
    present = {path for _, path in found}
    complete = all(_label_path(sample.path) in present for sample in frames(subset.train))
    return found if complete else []


def _lines(split: str, items: Sequence[Item]) -> Iterable[tuple[Any, ...]]:
    for item in items:
        for number, sample in enumerate(frames([item])):
            tracklet = (item.path, number) if isinstance(item, Tracklet) else ("", "")
            yield split, sample.path, sample.pid, sample.camid, *tracklet


def _manifest_table(
    subset: Dataset, manifest: Manifest, *, name: str, title: str, has_labels: bool
) -> dict[str, Any]:
    items = (*subset.train, *subset.query, *subset.gallery)
    roles: dict[str, Role] = {str(i.pid): i.role for i in items if i.role != "person"}
    cameras = len({item.camid for item in items})
    table: dict[str, Any] = {
        "format": 1,
        "name": name,
        "title": title,
        "home": manifest.home,
        "licence": manifest.licence,
        "paper": manifest.paper,
        "synthetic": manifest.synthetic,
        "reader": "csv",
        "table": TABLE,
        "task": manifest.task,
        "cameras": "none" if manifest.cameras == "none" else cameras,
        "identities": manifest.identities,
        "dense": manifest.dense,
    }
    if manifest.protocol is not None:
        table["protocol"] = manifest.protocol
    if has_labels:
        table["labels"] = LABELS
    table["roles"] = dict(sorted(roles.items()))
    table["splits"] = {
        split: _counts(getattr(subset, split)) for split in SPLITS if getattr(subset, split)
    }
    return table


def _counts(items: Sequence[Item]) -> dict[str, int]:
    roles = Counter(item.role for item in items)
    counts = {
        "images": sum(1 for _ in frames(items)),
        "ids": len({item.pid for item in items if item.role == "person"}),
        "junk": roles["junk"],
        "distractors": roles["distractor"],
    }
    tracklets = sum(isinstance(item, Tracklet) for item in items)
    return counts | ({"tracklets": tracklets} if tracklets else {})
