"""Layouts of tracklets: MARS and DukeMTMC-VideoReID."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.synthetic.drawing import Progress
from reidkit.synthetic.layouts.planning import NOBODY, plan_tracklets


def write_mars(
    root: Path,
    *,
    train_pids: int,
    test_pids: int,
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """MARS: six cameras, frames of 256x128, tracklets told by info/*.mat, queries among the test
    tracklets, tracklets of nobody (-1) and of people who are nowhere else (0)."""
    walks: dict[int, int] = {}

    def name(split: str, pid: int, camera: int, visit: int, k: int) -> str:
        folder = "bbox_train" if split == "train" else "bbox_test"
        shown = "00-1" if pid == NOBODY else f"{pid:04d}"
        walk = walks.setdefault(visit, len(walks) + 1)
        return f"{folder}/{shown}/{shown}C{camera}T{walk:04d}F{k + 1:03d}.jpg"

    plan = plan_tracklets(
        train_pids=train_pids,
        test_pids=test_pids,
        seed=seed,
        cameras=6,
        name=name,
        size=(256, 128),
        strangers=True,
    )

    def info(folder: Path) -> None:
        (folder / "info").mkdir()
        for half, splits in (("train", ("train",)), ("test", ("query", "gallery"))):
            visits = [(split, *visit) for split in splits for visit in plan.splits[split]]
            visits.sort(key=lambda visit: visit[3][0])
            names: list[str] = []
            tracks, queries = [], []
            for index, (split, pid, camera, paths) in enumerate(visits, start=1):
                tracks.append([len(names) + 1, len(names) + len(paths), pid, camera])
                names += [path.rpartition("/")[2] for path in paths]
                queries += [index] if split == "query" else []
            (folder / f"info/{half}_name.txt").write_text("".join(f"{n}\n" for n in names))
            matrix = np.array(tracks, np.int32)
            save_matrix(folder / f"info/tracks_{half}_info.mat", f"track_{half}_info", matrix)
            if half == "test":
                matrix = np.array([queries], np.int32)
                save_matrix(folder / "info/query_IDX.mat", "query_IDX", matrix)

    folders = {"train": "bbox_train", "query": "bbox_test", "gallery": "bbox_test"}
    splits: dict[str, dict[str, Any]] = {
        split: {"folder": folder, **plan.counts(split, tracklets=True)}
        for split, folder in folders.items()
    }
    plan.write(
        root,
        layout="mars",
        title="tracklets, MARS layout",
        settings={
            "reader": "mars",
            "protocol": "mars",
            "roles": {"-1": "junk", "0": "distractor"},
            "splits": splits,
        },
        on_progress=on_progress,
        workers=workers,
        finish=info,
    )


def save_matrix(path: Path, name: str, matrix: NDArray[np.int32]) -> None:
    """A .mat file without the time of its making, which MATLAB's header holds."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, {name: matrix})
    header = b"MATLAB 5.0 MAT-file, written by reidkit".ljust(116)
    path.write_bytes(header + buffer.getvalue()[116:])


def write_dukemtmc_videoreid(
    root: Path,
    *,
    train_pids: int,
    test_pids: int,
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """DukeMTMC-VideoReID: eight cameras, a folder per tracklet, frames counted from 1."""
    plan = plan_tracklets(
        train_pids=train_pids,
        test_pids=test_pids,
        seed=seed,
        cameras=8,
        name=lambda split, pid, camera, visit, k: (
            f"{split}/{pid:04d}/{visit + 1:04d}/{pid:04d}_C{camera}_F{k + 1:04d}_X{visit}.jpg"
        ),
    )
    plan.write(
        root,
        layout="dukemtmc-videoreid",
        title="tracklets, DukeMTMC-VideoReID layout",
        settings={
            "reader": "tracklets",
            "protocol": "market",
            "dense": 32,
            "pattern": r"(?P<pid>\d{4})_?C(?P<camid>\d)_?F(?P<frame>\d+)_?X\d+\.jpg",
            "splits": {
                split: {"folder": split, **plan.counts(split, tracklets=True)}
                for split in ("train", "query", "gallery")
            },
        },
        on_progress=on_progress,
        workers=workers,
    )
