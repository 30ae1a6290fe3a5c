"""Plans of data sets: who is seen by which camera how often, under which file names.

Market-1501's layout makes its own visits; the others share `plan_images` and `plan_tracklets`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reidkit.synthetic.layouts.folder import SyntheticConfig, new_folder, write_manifest
from reidkit.synthetic.visits import Progress, Shot, ShotKind, Visit, write_visits

JUNK_PID, DISTRACTOR_PID = -1, 0
"""Ids of false detections, and of people without a query."""

FileName = Callable[[str, int, int, int, int], str]
"""(split, pid, camera, number of the visit, number of its image) -> path of the image."""


@dataclass(frozen=True)
class Layout:
    """A data set before it is rendered.

    Attributes:
        title: describes the data set in its manifest.
        cameras: number of cameras to sample; a small data set may use fewer.
        settings: keys of the manifest beside those that all layouts share.
        write_lists: writes files other than images, label maps and manifest into the folder.
    """

    title: str
    cameras: int
    visits: Sequence[Visit]
    settings: Mapping[str, Any]
    write_lists: Callable[[Path], None] = lambda folder: None


def write_layout(
    root: Path,
    *,
    name: str,
    plan: Callable[[SyntheticConfig], Layout],
    train_pids: int,
    test_pids: int,
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Renders a data set into `root`, a new or empty folder; arguments as in `folder.Writer`."""
    layout = plan(SyntheticConfig(train_pids, test_pids, seed))
    with new_folder(root) as folder:
        shots = [shot for visit in layout.visits for shot in visit.shots]
        files = [path for s in shots for path in (s.image, s.labels) if path is not None]
        for parent in sorted({Path(file).parent for file in files}):
            (folder / parent).mkdir(parents=True, exist_ok=True)
        write_visits(
            folder,
            layout.visits,
            seed=seed,
            cameras=layout.cameras,
            on_progress=on_progress,
            workers=workers,
        )
        layout.write_lists(folder)
        write_manifest(
            folder,
            layout=name,
            title=layout.title,
            seed=seed,
            settings={
                "cameras": len({visit.camera for visit in layout.visits}),
                "labels": "labels",
                **layout.settings,
            },
        )


@dataclass
class Schedule:
    """Visits, and the splits that their images belong to.

    Attributes:
        cameras: number of cameras.
        name: names the image files.
        size: (height, width) of the images; None keeps the rendered size.
        visits: in the order in which they were added.
        splits: split -> its visits as (pid, camera, paths of the images), in order.
    """

    cameras: int
    name: FileName
    size: tuple[int, int] | None = None
    visits: list[Visit] = field(default_factory=list)
    splits: dict[str, list[tuple[int, int, list[str]]]] = field(default_factory=dict)

    def add(
        self, split: str, pid: int, camera: int, kinds: Sequence[ShotKind], *, video: bool = False
    ) -> None:
        """Adds a person's visit to a camera."""
        number = len(self.visits)
        paths = [self.name(split, pid, camera, number, k) for k in range(len(kinds))]
        shots = tuple(
            Shot(path, f"labels/{path.rpartition('.')[0]}.png", kind, self.size)
            for path, kind in zip(paths, kinds, strict=True)
        )
        person = pid if pid > 0 else 20_000 + number
        self.visits.append(Visit(person, camera, (9, number), shots, video))
        self.splits.setdefault(split, []).append((pid, camera, paths))

    def counts(self, split: str, *, tracklets: bool) -> dict[str, int]:
        """Expected counts of a split in the manifest."""
        visits = self.splits.get(split, [])
        items = [pid for pid, _, paths in visits for _ in (paths[:1] if tracklets else paths)]
        counts = {
            "images": sum(len(paths) for *_, paths in visits),
            "ids": len({pid for pid, *_ in visits} - {JUNK_PID, DISTRACTOR_PID}),
            "junk": items.count(JUNK_PID),
            "distractors": items.count(DISTRACTOR_PID),
        }
        return counts | ({"tracklets": len(visits)} if tracklets else {})


def plan_images(
    config: SyntheticConfig,
    *,
    cameras: int,
    name: FileName,
    size: tuple[int, int] | None = None,
    max_pids: int = 9000,
    distractors: bool = False,
) -> Schedule:
    """Images of every identity in two to four cameras.

    In each camera, a training identity has two to four images, and a test identity one query and
    two or three gallery images. `distractors` adds people without a query to the gallery.
    """
    config.check(max_pids=max_pids)
    schedule = Schedule(cameras, name, size)
    rng = np.random.default_rng([config.seed, 11])
    for pid in range(1, config.train_pids + 1):
        for camera in _sample_cameras(rng, cameras):
            schedule.add("train", pid, camera, ["person"] * int(rng.integers(2, 5)))
    for pid in range(config.train_pids + 1, config.train_pids + config.test_pids + 1):
        for camera in _sample_cameras(rng, cameras):
            schedule.add("query", pid, camera, ["annotated"])
            schedule.add("gallery", pid, camera, ["person"] * int(rng.integers(2, 4)))
    if distractors:
        for k in range(max(1, config.test_pids // 2)):
            camera = int(rng.integers(1, cameras + 1))
            schedule.add("gallery", 7000 + k, camera, ["person"] * int(rng.integers(1, 3)))
    return schedule


def plan_tracklets(
    config: SyntheticConfig,
    *,
    cameras: int,
    name: FileName,
    size: tuple[int, int] | None = None,
    distractors: bool = False,
) -> Schedule:
    """One tracklet of every identity in each of two to four cameras.

    Half of the tracklets have up to 16 frames, the longest 60. The first one of a test identity is
    its query, the others are in the gallery. `distractors` adds a junk tracklet and tracklets of
    people without a query to the gallery.
    """
    config.check(max_pids=9000)
    schedule = Schedule(cameras, name, size)
    rng = np.random.default_rng([config.seed, 12])
    for pid in range(1, config.train_pids + config.test_pids + 1):
        for k, camera in enumerate(_sample_cameras(rng, cameras)):
            split = "train" if pid <= config.train_pids else "query" if k == 0 else "gallery"
            schedule.add(split, pid, camera, frame_kinds(rng), video=True)
    if distractors:
        for pid in (JUNK_PID, *[DISTRACTOR_PID] * max(1, config.test_pids // 4)):
            junk: list[ShotKind] = ["background"] * int(rng.integers(2, 8))
            kinds = junk if pid == JUNK_PID else frame_kinds(rng)
            schedule.add("gallery", pid, int(rng.integers(1, cameras + 1)), kinds, video=True)
    return schedule


def frame_kinds(rng: np.random.Generator) -> list[ShotKind]:
    """Kinds of a tracklet's frames, sampled with a tracker's typical errors.

    Some frames have bad boxes or show only background. In a fifth of the tracklets the tracker
    follows another person at the beginning or end, for at most a third of the frames.
    """
    if rng.random() < 0.08:
        return ["person"]
    length = int(np.clip(round(float(np.exp(rng.normal(2.75, 0.6)))), 2, 60))
    kinds: list[ShotKind] = ["person"] * length
    for k in range(length):
        if rng.random() < 0.06:
            kinds[k] = "background" if rng.random() < 0.5 else "fragment"
    if length >= 4 and rng.random() < 0.2:
        lost = int(rng.integers(1, max(length // 3, 1) + 1))
        start = 0 if rng.random() < 0.5 else length - lost
        kinds[start : start + lost] = ["other"] * lost
    return kinds


def _sample_cameras(rng: np.random.Generator, cameras: int) -> list[int]:
    count = int(rng.integers(2, min(cameras, 4) + 1))
    return sorted((rng.permutation(cameras)[:count] + 1).tolist())
