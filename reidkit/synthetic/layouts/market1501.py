"""Market-1501's layout (Zheng et al. 2015), and that of its extension by 500k distractors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reidkit.synthetic.layouts.folder import SyntheticConfig
from reidkit.synthetic.layouts.planning import Layout
from reidkit.synthetic.visits import Shot, ShotKind, Visit

CAMERAS = 6
MAX_IDS = 9000
"""File names have four digits for an id."""
JUNK_SHARE, DISTRACTOR_SHARE = 0.10, 0.16
"""Junk and distractor images per gallery image of a test identity."""
PATTERN = r"(?P<pid>-1|\d{4})_c(?P<camid>\d)s\d+_\d+_\d+\.jpg"
TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
DISTRACTORS = "images"


def market1501(config: SyntheticConfig) -> Layout:
    """Market-1501: six cameras, detected boxes, manually annotated queries, junk and distractors.

    About 16 images per training identity; each test identity has one query and two to five gallery
    images in every camera that it is seen by, at least two.
    """
    visits = plan_visits(config)
    return Layout(
        title="pedestrians, Market-1501 layout",
        cameras=CAMERAS,
        visits=visits,
        settings=_settings(visits),
    )


def market1501_500k(config: SyntheticConfig) -> Layout:
    """Market-1501 with an additional folder images/ of distractors, twenty per test identity."""
    visits = plan_visits(config)
    settings = _settings(visits)
    rng = np.random.default_rng([config.seed, 17])
    count = 20 * config.test_pids
    for number in range(count):
        camera = int(rng.integers(1, CAMERAS + 1))
        shot = Shot(f"{DISTRACTORS}/{number:07d}.jpg", None)
        visits.append(Visit(30_000 + number, camera, (4, number), (shot,)))
    gallery = settings["splits"]["gallery"]
    gallery["distractors_in"] = [DISTRACTORS]
    gallery["images"] += count
    gallery["distractors"] += count
    return Layout(
        title="pedestrians, Market-1501 layout with more distractors",
        cameras=CAMERAS,
        visits=visits,
        settings=settings,
    )


def plan_visits(config: SyntheticConfig) -> list[Visit]:
    """All visits. The ids of training and test people are interleaved, as in the original."""
    config.check(max_pids=MAX_IDS)
    train_pids = config.train_pids
    rng = np.random.default_rng([config.seed, 10])
    order = rng.permutation(train_pids + config.test_pids) + 1
    names = _Names(rng)
    visits: list[Visit] = []
    for pid in sorted(order[:train_pids].tolist()):
        visits += _train_visits(pid, names, rng)
    for pid in sorted(order[train_pids:].tolist()):
        visits += _test_visits(pid, names, rng)
    gallery = sum(shot.image.startswith(GALLERY) for visit in visits for shot in visit.shots)
    for number in range(max(1, round(gallery * JUNK_SHARE))):
        pid = int(rng.choice(order[train_pids:]))
        kind: ShotKind = "background" if rng.random() < 0.35 else "fragment"
        visits.append(_extra("-1", pid, number, kind, names, rng))
    for number in range(max(1, round(gallery * DISTRACTOR_SHARE))):
        kind = "background" if rng.random() < 0.2 else "person"
        visits.append(_extra("0000", 10_000 + number // 2, number, kind, names, rng))
    return visits


class _Names:
    """File names, with frame numbers that are unique per camera and sequence."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._taken: set[tuple[int, int, int]] = set()

    def shots(
        self, pid: str, camera: int, sequence: int, targets: list[tuple[str, ShotKind]]
    ) -> tuple[Shot, ...]:
        """Names for consecutive images of one visit, given as (folder, kind)."""
        frame = int(self._rng.integers(1, 99_000 // len(targets))) * len(targets)
        shots = []
        for folder, kind in targets:
            while (camera, sequence, frame) in self._taken:
                frame += 1
            self._taken.add((camera, sequence, frame))
            box = 0 if kind == "annotated" else int(self._rng.integers(1, 6))
            stem = f"{folder}/{pid}_c{camera}s{sequence}_{frame:06d}_{box:02d}"
            shots.append(Shot(f"{stem}.jpg", f"labels/{stem}.png", kind))
            frame += int(self._rng.integers(20, 30))
        return tuple(shots)


def _cameras(rng: np.random.Generator, fewest: int) -> list[int]:
    count = int(rng.integers(fewest, CAMERAS + 1))
    return sorted((rng.permutation(CAMERAS)[:count] + 1).tolist())


def _train_visits(pid: int, names: _Names, rng: np.random.Generator) -> list[Visit]:
    cameras = _cameras(rng, 3)
    shares = rng.multinomial(
        int(rng.integers(12, 21)) - 2 * len(cameras), [1 / len(cameras)] * len(cameras)
    )
    visits = []
    for camera, more in zip(cameras, shares.tolist(), strict=True):
        # more than three images by one camera come from two walks
        parts = [2 + more] if 2 + more <= 3 else [(2 + more) // 2, 2 + more - (2 + more) // 2]
        for number, count in enumerate(parts):
            sequence = int(rng.integers(1, 7))
            shots = names.shots(f"{pid:04d}", camera, sequence, [(TRAIN, "person")] * count)
            visits.append(Visit(pid, camera, (0, pid, camera, number), shots))
    return visits


def _test_visits(pid: int, names: _Names, rng: np.random.Generator) -> list[Visit]:
    visits = []
    for camera in _cameras(rng, 2):
        targets: list[tuple[str, ShotKind]] = [(GALLERY, "person")] * int(rng.integers(2, 6))
        targets.insert(int(rng.integers(len(targets) + 1)), (QUERY, "annotated"))
        shots = names.shots(f"{pid:04d}", camera, int(rng.integers(1, 7)), targets)
        visits.append(Visit(pid, camera, (1, pid, camera), shots))
    return visits


def _extra(
    written: str, person: int, number: int, kind: ShotKind, names: _Names, rng: np.random.Generator
) -> Visit:
    """A visit with one junk or distractor image."""
    camera = int(rng.integers(1, CAMERAS + 1))
    shots = names.shots(written, camera, int(rng.integers(1, 7)), [(GALLERY, kind)])
    return Visit(person, camera, (2 if written == "-1" else 3, number), shots)


def _settings(visits: list[Visit]) -> dict[str, Any]:
    splits = {}
    for name, folder in (("train", TRAIN), ("query", QUERY), ("gallery", GALLERY)):
        pids = [
            Path(shot.image).name.partition("_")[0]
            for visit in visits
            for shot in visit.shots
            if shot.image.startswith(f"{folder}/")
        ]
        splits[name] = {
            "folder": folder,
            "images": len(pids),
            "ids": len(set(pids) - {"-1", "0000"}),
            "junk": pids.count("-1"),
            "distractors": pids.count("0000"),
        }
    return {
        "reader": "pattern",
        "protocol": "market",
        "pattern": PATTERN,
        "roles": {"-1": "junk", "0000": "distractor"},
        "splits": splits,
    }
