"""What a data set must not hold, whatever its layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from reidkit.types import Dataset, Item, Sample, Tracklet


def frames(items: Iterable[Item]) -> Iterator[Sample]:
    """Every image of a split, whether it holds images or tracklets."""
    for item in items:
        yield from item.frames if isinstance(item, Tracklet) else (item,)


def repeated(dataset: Dataset) -> list[str]:
    """Messages about images that come twice: within a split, in train and in test, or, where no
    camera rule leaves them out of the ranking, in query and gallery."""
    paths = {
        name: [sample.path for sample in frames(getattr(dataset, name))]
        for name in ("train", "query", "gallery")
    }
    messages = []
    for name, found in paths.items():
        twice = [path for path, count in Counter(found).items() if count > 1]
        if twice:
            messages.append(f"[{name}] {len(twice)} images come twice, the first is {twice[0]}")
    sets = {name: set(found) for name, found in paths.items()}
    pairs = [("train", "query"), ("train", "gallery")]
    if dataset.protocol == "none":
        pairs.append(("query", "gallery"))
    for first, second in pairs:
        both = sorted(sets[first] & sets[second])
        if both:
            messages.append(
                f"{len(both)} images are in both {first} and {second}, the first is {both[0]}"
            )
    return messages


def unmatched(dataset: Dataset) -> list[Item]:
    """Queries whose identity nobody in the gallery has, before another camera where the protocol
    asks for one."""
    if dataset.protocol == "classification":
        return []
    gallery = dataset.gallery + (dataset.query if dataset.protocol == "mars" else ())
    cameras: dict[int, set[int]] = {}
    for item in gallery:
        if item.role == "person":
            cameras.setdefault(item.pid, set()).add(item.camid)
    anywhere = dataset.protocol == "none"
    return [
        query
        for query in dataset.query
        if not (cameras.get(query.pid, set()) - (set() if anywhere else {query.camid}))
    ]
