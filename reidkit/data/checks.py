"""Consistency checks of a data set, independent of its layout."""

from __future__ import annotations

from collections import Counter

from reidkit.types import SPLITS, Dataset, Item, Split, frames


def duplicates(dataset: Dataset) -> list[str]:
    """Messages about images that occur twice: within a split, in train and test, or in query and
    gallery where the protocol removes no image of the same camera from the ranking."""
    paths = {split: [sample.path for sample in frames(getattr(dataset, split))] for split in SPLITS}
    messages = []
    for split, found in paths.items():
        repeated = [path for path, count in Counter(found).items() if count > 1]
        if repeated:
            messages.append(
                f"[{split}] {len(repeated)} images occur more than once, the first is {repeated[0]}"
            )
    sets = {split: set(found) for split, found in paths.items()}
    pairs: list[tuple[Split, Split]] = [("train", "query"), ("train", "gallery")]
    if dataset.protocol == "none":
        pairs.append(("query", "gallery"))
    for first, second in pairs:
        both = sorted(sets[first] & sets[second])
        if both:
            messages.append(
                f"{len(both)} images are in both {first} and {second}, the first is {both[0]}"
            )
    return messages


def unmatched_queries(dataset: Dataset) -> list[Item]:
    """Queries without a match in the gallery: no image of the same identity (and, unless the
    protocol is "none", of another camera)."""
    if dataset.task == "classification":
        return []
    gallery = dataset.gallery + (dataset.query if dataset.protocol == "mars" else ())
    cameras: dict[int, set[int]] = {}
    for item in gallery:
        if item.role == "person":
            cameras.setdefault(item.pid, set()).add(item.camid)
    same_camera_counts = dataset.protocol == "none"
    return [
        query
        for query in dataset.query
        if not cameras.get(query.pid, set()) - (set() if same_camera_counts else {query.camid})
    ]
