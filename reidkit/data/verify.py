"""Compares a data set on disk with what its manifest says it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reidkit.data.manifest import SPLITS, Manifest
from reidkit.errors import DataError
from reidkit.preprocess import read_image
from reidkit.types import Dataset, Item, Sample, Tracklet


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
    """Counts of every split, cameras, and identities shared by training and test (none allowed)."""
    checks = []
    for name in SPLITS:
        if name not in manifest.splits:
            continue
        spec, samples = manifest.splits[name], list(frames(getattr(dataset, name)))
        roles = [sample.role for sample in samples]
        persons = {sample.pid for sample in samples if sample.role == "person"}
        checks += [
            Check(name, "images", len(samples), spec.images),
            Check(name, "ids", len(persons), spec.ids),
            Check(name, "junk", roles.count("junk"), spec.junk),
            Check(name, "distractors", roles.count("distractor"), spec.distractors),
        ]
    train, test = (
        {s.pid for s in frames(split) if s.role == "person"}
        for split in (dataset.train, (*dataset.query, *dataset.gallery))
    )
    everything = [*dataset.train, *dataset.query, *dataset.gallery]
    cameras = {sample.camid for sample in frames(everything)}
    if manifest.cameras != "none":
        checks.append(Check("all", "cameras", len(cameras), manifest.cameras))
    checks.append(Check("all", "ids both in train and test", len(train & test), 0))
    return checks


def frames(items: Iterable[Item]) -> Iterator[Sample]:
    """Every image of a split, whether it holds images or tracklets."""
    for item in items:
        yield from item.frames if isinstance(item, Tracklet) else (item,)


def unreadable(dataset: Dataset, *, on_progress: Callable[[int, int], None]) -> list[str]:
    """Opens and decodes every image; returns one message per image that fails, in path order."""
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
