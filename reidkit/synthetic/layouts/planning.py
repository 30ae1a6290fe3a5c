"""Who is seen by which camera and how often, for every layout but Market-1501's; a layout adds the
names of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reidkit.synthetic.drawing import Progress, Shot, ShotKind, Visit, draw_files
from reidkit.synthetic.layouts.folder import check_numbers, new_folder, write_manifest

NOBODY, STRANGER = -1, 0
"""Ids of tracklets that show a false detection, or somebody who is in no other place."""

Name = Callable[[str, int, int, int, int], str]
"""(split, id, camera, number of the visit, number of the image in it) -> path of the image."""


@dataclass
class Plan:
    """What will be drawn.

    Attributes:
        visits: for the engine.
        splits: split -> visits as (id, camera, paths), in order.
    """

    seed: int
    cameras: int
    name: Name
    size: tuple[int, int] | None = None
    visits: list[Visit] = field(default_factory=list)
    splits: dict[str, list[tuple[int, int, list[str]]]] = field(default_factory=dict)

    def add(
        self, split: str, pid: int, camera: int, kinds: Sequence[ShotKind], *, video: bool = False
    ) -> None:
        """One person's visit to one camera."""
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
        """Of a manifest's split."""
        visits = self.splits.get(split, [])
        items = [pid for pid, _, paths in visits for _ in (paths[:1] if tracklets else paths)]
        counts = {
            "images": sum(len(paths) for *_, paths in visits),
            "ids": len({pid for pid, *_ in visits} - {NOBODY, STRANGER}),
            "junk": items.count(NOBODY),
            "distractors": items.count(STRANGER),
        }
        return counts | ({"tracklets": len(visits)} if tracklets else {})

    def write(
        self,
        root: Path,
        *,
        layout: str,
        title: str,
        settings: Mapping[str, Any],
        on_progress: Progress | None,
        workers: int | None,
        finish: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        """Draws everything into `root`; `finish` adds what else the layout has."""
        with new_folder(root) as folder:
            shots = [shot for visit in self.visits for shot in visit.shots]
            files = [path for s in shots for path in (s.image, s.labels) if path is not None]
            for parent in sorted({Path(file).parent for file in files}):
                (folder / parent).mkdir(parents=True, exist_ok=True)
            draw_files(
                folder,
                self.visits,
                seed=self.seed,
                cameras=self.cameras,
                on_progress=on_progress,
                workers=workers,
            )
            finish(folder)
            write_manifest(
                folder,
                layout=layout,
                title=title,
                seed=self.seed,
                settings={
                    "cameras": len({visit.camera for visit in self.visits}),
                    "labels": "labels",
                    **settings,
                },
            )


def plan_images(
    *,
    train_pids: int,
    test_pids: int,
    seed: int,
    cameras: int,
    name: Name,
    size: tuple[int, int] | None = None,
    most: int = 9000,
    strangers: bool = False,
) -> Plan:
    """Training ids with two to four images in each of two to four cameras, test ids with a query
    and two to three gallery images in each; `strangers` adds people without a query."""
    check_numbers(train_pids=train_pids, test_pids=test_pids, seed=seed, most=most)
    plan = Plan(seed, cameras, name, size)
    rng = np.random.default_rng([seed, 11])
    for pid in range(1, train_pids + 1):
        for camera in _cameras(rng, cameras):
            plan.add("train", pid, camera, ["person"] * int(rng.integers(2, 5)))
    for pid in range(train_pids + 1, train_pids + test_pids + 1):
        for camera in _cameras(rng, cameras):
            plan.add("query", pid, camera, ["close"])
            plan.add("gallery", pid, camera, ["person"] * int(rng.integers(2, 4)))
    if strangers:
        for k in range(max(1, test_pids // 2)):
            camera = int(rng.integers(1, cameras + 1))
            plan.add("gallery", 7000 + k, camera, ["person"] * int(rng.integers(1, 3)))
    return plan


def plan_tracklets(
    *,
    train_pids: int,
    test_pids: int,
    seed: int,
    cameras: int,
    name: Name,
    size: tuple[int, int] | None = None,
    strangers: bool = False,
) -> Plan:
    """Tracklets of 1 to 60 frames, half of them up to 16; each id is seen by two to four cameras,
    test ids with one query before the first; `strangers` adds nobody's and other people's."""
    check_numbers(train_pids=train_pids, test_pids=test_pids, seed=seed, most=9000)
    plan = Plan(seed, cameras, name, size)
    rng = np.random.default_rng([seed, 12])
    for pid in range(1, train_pids + test_pids + 1):
        for k, camera in enumerate(_cameras(rng, cameras)):
            split = "train" if pid <= train_pids else "query" if k == 0 else "gallery"
            plan.add(split, pid, camera, frame_kinds(rng), video=True)
    if strangers:
        for pid in (NOBODY, *[STRANGER] * max(1, test_pids // 4)):
            nothing: list[ShotKind] = ["nobody"] * int(rng.integers(2, 8))
            kinds = frame_kinds(rng) if pid == STRANGER else nothing
            plan.add("gallery", pid, int(rng.integers(1, cameras + 1)), kinds, video=True)
    return plan


def frame_kinds(rng: np.random.Generator) -> list[ShotKind]:
    """A tracklet's frames: mostly the person, here and there a bad box or nobody, and in every
    fifth a stretch at an end where the tracker follows somebody else; never most of them wrong."""
    if rng.random() < 0.08:
        return ["person"]
    length = int(np.clip(round(float(np.exp(rng.normal(2.75, 0.6)))), 2, 60))
    kinds: list[ShotKind] = ["person"] * length
    for k in range(length):
        if rng.random() < 0.06:
            kinds[k] = "nobody" if rng.random() < 0.5 else "fragment"
    if length >= 4 and rng.random() < 0.2:
        lost = int(rng.integers(1, max(length // 3, 1) + 1))
        start = 0 if rng.random() < 0.5 else length - lost
        kinds[start : start + lost] = ["stranger"] * lost
    return kinds


def _cameras(rng: np.random.Generator, cameras: int) -> list[int]:
    count = int(rng.integers(2, min(cameras, 4) + 1))
    return sorted((rng.permutation(cameras)[:count] + 1).tolist())
