"""Layouts of tracklets: MARS and DukeMTMC-VideoReID."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.synthetic.layouts.folder import SyntheticConfig
from reidkit.synthetic.layouts.planning import JUNK_PID, Layout, Schedule, plan_tracklets

MARS_FOLDERS = {"train": "bbox_train", "query": "bbox_test", "gallery": "bbox_test"}


def mars(config: SyntheticConfig) -> Layout:
    """MARS: six cameras, frames of 256x128, tracklets listed in info/*.mat, queries among the test
    tracklets, junk (-1) and distractor tracklets (0)."""
    numbers: dict[int, int] = {}  # of the tracklets

    def name(split: str, pid: int, camera: int, visit: int, k: int) -> str:
        shown = "00-1" if pid == JUNK_PID else f"{pid:04d}"
        number = numbers.setdefault(visit, len(numbers) + 1)
        return f"{MARS_FOLDERS[split]}/{shown}/{shown}C{camera}T{number:04d}F{k + 1:03d}.jpg"

    schedule = plan_tracklets(config, cameras=6, name=name, size=(256, 128), distractors=True)
    return Layout(
        title="tracklets, MARS layout",
        cameras=6,
        visits=schedule.visits,
        settings={
            "reader": "mars",
            "protocol": "mars",
            "roles": {"-1": "junk", "0": "distractor"},
            "splits": {
                split: {"folder": folder, **schedule.counts(split, tracklets=True)}
                for split, folder in MARS_FOLDERS.items()
            },
        },
        write_lists=lambda folder: _write_mars_info(folder / "info", schedule),
    )


def _write_mars_info(info: Path, schedule: Schedule) -> None:
    """Names of all frames, tracklets as rows (first frame, last frame, pid, camera), query rows."""
    info.mkdir()
    for half, splits in (("train", ("train",)), ("test", ("query", "gallery"))):
        visits = [(split, *visit) for split in splits for visit in schedule.splits[split]]
        visits.sort(key=lambda visit: visit[3][0])
        names: list[str] = []
        tracks, queries = [], []
        for index, (split, pid, camera, paths) in enumerate(visits, start=1):
            tracks.append([len(names) + 1, len(names) + len(paths), pid, camera])
            names += [path.rpartition("/")[2] for path in paths]
            queries += [index] if split == "query" else []
        (info / f"{half}_name.txt").write_text("".join(f"{n}\n" for n in names))
        matrix = np.array(tracks, np.int32)
        _save_matrix(info / f"tracks_{half}_info.mat", f"track_{half}_info", matrix)
        if half == "test":
            _save_matrix(info / "query_IDX.mat", "query_IDX", np.array([queries], np.int32))


def _save_matrix(path: Path, name: str, matrix: NDArray[np.int32]) -> None:
    """A .mat file without the time of writing in its header, so that its bytes are reproducible."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, {name: matrix})
    header = b"MATLAB 5.0 MAT-file, written by reidkit".ljust(116)
    path.write_bytes(header + buffer.getvalue()[116:])


def dukemtmc_videoreid(config: SyntheticConfig) -> Layout:
    """DukeMTMC-VideoReID: eight cameras, a folder per tracklet, frames numbered from 1."""
    schedule = plan_tracklets(
        config,
        cameras=8,
        name=lambda split, pid, camera, visit, k: (
            f"{split}/{pid:04d}/{visit + 1:04d}/{pid:04d}_C{camera}_F{k + 1:04d}_X{visit}.jpg"
        ),
    )
    return Layout(
        title="tracklets, DukeMTMC-VideoReID layout",
        cameras=8,
        visits=schedule.visits,
        settings={
            "reader": "tracklets",
            "protocol": "market",
            "dense": 32,
            "pattern": r"(?P<pid>\d{4})_?C(?P<camid>\d)_?F(?P<frame>\d+)_?X\d+\.jpg",
            "splits": {
                split: {"folder": split, **schedule.counts(split, tracklets=True)}
                for split in ("train", "query", "gallery")
            },
        },
    )
