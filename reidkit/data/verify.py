"""Comparison of a data set on disk with the counts of its manifest."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from reidkit.data.checks import unmatched_queries
from reidkit.data.schema import Manifest
from reidkit.errors import DataError
from reidkit.image import read_image
from reidkit.types import SPLITS, Dataset, Tracklet, frames


@dataclass(frozen=True)
class Check:
    """One comparison; `expected` is None where nothing was published."""

    split: str
    what: str
    found: int
    expected: int | None

    @property
    def passed(self) -> bool:
        return self.expected is None or self.found == self.expected


def verify(manifest: Manifest, dataset: Dataset) -> list[Check]:
    """Compares counts of every split, cameras, identities shared by train and test (if the manifest
    says they are disjoint), and queries without a match."""
    checks = []
    for name in SPLITS:
        if name not in manifest.splits:
            continue
        spec, items = manifest.splits[name], getattr(dataset, name)
        roles = [item.role for item in items]
        persons = {item.pid for item in items if item.role == "person"}
        tracklets = sum(isinstance(item, Tracklet) for item in items)
        checks += [
            Check(name, "images", sum(1 for _ in frames(items)), spec.images),
            Check(name, "ids", len(persons), spec.ids),
            Check(name, "junk", roles.count("junk"), _known(spec.junk)),
            Check(name, "distractors", roles.count("distractor"), _known(spec.distractors)),
        ]
        if tracklets or spec.tracklets:
            checks.append(Check(name, "tracklets", tracklets, spec.tracklets))
    items = (*dataset.train, *dataset.query, *dataset.gallery)
    if manifest.cameras != "none":
        cameras = {item.camid for item in items}
        if any(split.distractors_in for split in manifest.splits.values()):
            cameras.discard(0)  # the camera of distractors is unknown
        checks.append(Check("all", "cameras", len(cameras), manifest.cameras))
    if manifest.identities == "disjoint":
        train, test = (
            {item.pid for item in split if item.role == "person"}
            for split in (dataset.train, (*dataset.query, *dataset.gallery))
        )
        checks.append(Check("all", "ids both in train and test", len(train & test), 0))
    unmatched = len(unmatched_queries(dataset))
    checks.append(Check("all", "queries without a match", unmatched, _known(manifest.unmatched)))
    return checks


def _known(count: int | Literal["unknown"]) -> int | None:
    return None if count == "unknown" else count


def unreadable(dataset: Dataset, *, on_progress: Callable[[int, int], None]) -> list[str]:
    """Decodes every image; returns one message per image that fails, in the order of the splits."""
    paths = [s.path for s in frames([*dataset.train, *dataset.query, *dataset.gallery])]
    problems = []

    def problem(path: str) -> str | None:
        try:
            read_image(dataset.root / path)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        for done, message in enumerate(pool.map(problem, paths), start=1):
            on_progress(done, len(paths))
            if message is not None:
                problems.append(message)
    return problems
