"""Market-1501's layout (Zheng et al. 2015): six cameras, detected boxes, hand-drawn queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reidkit.synthetic.drawing import Progress, Shot, ShotKind, Visit, draw_files
from reidkit.synthetic.layouts.folder import check_numbers, new_folder, write_manifest

CAMERAS = 6
MAX_IDS = 9000
"""File names have four digits for an id; numbers above are kept for people who are nobody's."""
JUNK_SHARE, DISTRACTOR_SHARE = 0.10, 0.16
"""Bad boxes and true negatives per gallery image of a person."""
PATTERN = r"(?P<pid>-1|\d{4})_c(?P<camid>\d)s\d+_\d+_\d+\.jpg"
TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
MORE = "images"


def write_market1501(
    root: Path,
    *,
    train_pids: int,
    test_pids: int,
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Draws a data set in Market-1501's layout, file names included, with label maps.

    About 16 images per training id; each test id has one query and two to five gallery images in
    every camera that saw it (at least two cameras).

    Args:
        root: a new or empty folder.
        on_progress: called with (images written, images in all).
        workers: drawing processes; None decides by the work and the cores.
    Raises:
        DataError: if `root` is not empty, the numbers are impossible or a file cannot be written.
    """
    check_numbers(train_pids=train_pids, test_pids=test_pids, seed=seed, most=MAX_IDS)
    visits = plan(train_pids=train_pids, test_pids=test_pids, seed=seed)
    with new_folder(root) as folder:
        for name in (TRAIN, QUERY, GALLERY):
            (folder / name).mkdir()
            (folder / "labels" / name).mkdir(parents=True)
        draw_files(
            folder, visits, seed=seed, cameras=CAMERAS, on_progress=on_progress, workers=workers
        )
        write_manifest(
            folder,
            layout="market1501",
            title="pedestrians, Market-1501 layout",
            seed=seed,
            settings=settings(visits),
        )


def write_market1501_500k(
    root: Path,
    *,
    train_pids: int,
    test_pids: int,
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """The same with a folder images/ of more distractors, twenty for each test id.

    Raises:
        DataError: as `write_market1501`.
    """
    check_numbers(train_pids=train_pids, test_pids=test_pids, seed=seed, most=MAX_IDS)
    visits = plan(train_pids=train_pids, test_pids=test_pids, seed=seed)
    table = settings(visits)
    rng = np.random.default_rng([seed, 17])
    for number in range(20 * test_pids):
        camera = int(rng.integers(1, CAMERAS + 1))
        shot = Shot(f"{MORE}/{number:07d}.jpg", None)
        visits.append(Visit(30_000 + number, camera, (4, number), (shot,)))
    gallery = table["splits"]["gallery"]
    gallery["distractors_in"] = [MORE]
    gallery["images"] += 20 * test_pids
    gallery["distractors"] += 20 * test_pids
    with new_folder(root) as folder:
        for name in (TRAIN, QUERY, GALLERY):
            (folder / name).mkdir()
            (folder / "labels" / name).mkdir(parents=True)
        (folder / MORE).mkdir()
        draw_files(
            folder, visits, seed=seed, cameras=CAMERAS, on_progress=on_progress, workers=workers
        )
        title = "pedestrians, Market-1501 layout with more distractors"
        write_manifest(folder, layout="market1501-500k", title=title, seed=seed, settings=table)


def plan(*, train_pids: int, test_pids: int, seed: int) -> list[Visit]:
    """Who is seen when by which camera. Ids of both halves are mixed, as in the original."""
    rng = np.random.default_rng([seed, 10])
    order = rng.permutation(train_pids + test_pids) + 1
    names = _Names(rng)
    visits: list[Visit] = []
    for pid in sorted(order[:train_pids].tolist()):
        visits += _train_visits(pid, names, rng)
    for pid in sorted(order[train_pids:].tolist()):
        visits += _test_visits(pid, names, rng)
    gallery = sum(shot.image.startswith(GALLERY) for visit in visits for shot in visit.shots)
    for number in range(max(1, round(gallery * JUNK_SHARE))):
        pid = int(rng.choice(order[train_pids:]))
        kind: ShotKind = "nobody" if rng.random() < 0.35 else "fragment"
        visits.append(_extra("-1", pid, number, kind, names, rng))
    for number in range(max(1, round(gallery * DISTRACTOR_SHARE))):
        kind = "nobody" if rng.random() < 0.2 else "person"
        visits.append(_extra("0000", 10_000 + number // 2, number, kind, names, rng))
    return visits


class _Names:
    """File names; every frame number is given out once per camera and sequence."""

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
            box = 0 if kind == "close" else int(self._rng.integers(1, 6))
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
        # Many images of one camera come from more than one walk.
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
        targets.insert(int(rng.integers(len(targets) + 1)), (QUERY, "close"))
        shots = names.shots(f"{pid:04d}", camera, int(rng.integers(1, 7)), targets)
        visits.append(Visit(pid, camera, (1, pid, camera), shots))
    return visits


def _extra(
    written: str, person: int, number: int, kind: ShotKind, names: _Names, rng: np.random.Generator
) -> Visit:
    """One junk or distractor box."""
    camera = int(rng.integers(1, CAMERAS + 1))
    shots = names.shots(written, camera, int(rng.integers(1, 7)), [(GALLERY, kind)])
    return Visit(person, camera, (2 if written == "-1" else 3, number), shots)


def settings(visits: list[Visit]) -> dict[str, Any]:
    """The manifest's keys: how to read what was drawn, and the counts."""
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
        "cameras": len({visit.camera for visit in visits}),
        "pattern": PATTERN,
        "labels": "labels",
        "roles": {"-1": "junk", "0000": "distractor"},
        "splits": splits,
    }
