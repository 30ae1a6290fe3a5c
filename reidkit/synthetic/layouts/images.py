"""Layouts of images: DukeMTMC-reID, MSMT17, CUHK03 and a CSV table of your own data."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from reidkit.synthetic.layouts.folder import SyntheticConfig
from reidkit.synthetic.layouts.planning import Layout, Schedule, frame_kinds, plan_images

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MSMT17_FOLDERS = {
    "v1": {"train": "train", "query": "test", "gallery": "test"},
    "v2": {"train": "mask_train_v2", "query": "mask_test_v2", "gallery": "mask_test_v2"},
}
"""Folders of MSMT17's two releases."""


def dukemtmc_reid(config: SyntheticConfig) -> Layout:
    """DukeMTMC-reID: eight cameras, people without a query in the gallery."""
    schedule = plan_images(
        config,
        cameras=8,
        distractors=True,
        name=lambda split, pid, camera, visit, k: (
            f"{MARKET_FOLDERS[split]}/{pid:04d}_c{camera}_f{visit * 40 + k:07d}.jpg"
        ),
    )
    return Layout(
        title="pedestrians, DukeMTMC-reID layout",
        cameras=8,
        visits=schedule.visits,
        settings={
            "reader": "pattern",
            "protocol": "market",
            "pattern": r"(?P<pid>\d{4})_c(?P<camid>\d)_f\d+\.jpg",
            "splits": _splits(schedule, MARKET_FOLDERS),
        },
    )


def msmt17(config: SyntheticConfig, *, release: str) -> Layout:
    """MSMT17 "v1" or "v2": fifteen cameras, lists of files, both halves numbered from 0."""
    folders = MSMT17_FOLDERS[release]

    def number(split: str, pid: int) -> int:
        return pid - 1 if split == "train" else pid - 1 - config.train_pids

    def name(split: str, pid: int, camera: int, visit: int, k: int) -> str:
        shown = number(split, pid)
        file = f"{shown:04d}_{visit:03d}_{camera:02d}_0303noon_{k:04d}_0.jpg"
        return f"{folders[split]}/{shown:04d}/{file}"

    def write_lists(folder: Path) -> None:
        for split, visits in schedule.splits.items():
            lines = [
                f"{path.partition('/')[2]} {number(split, pid)}\n"
                for pid, _, paths in visits
                for path in paths
            ]
            if split == "train":  # the last tenth is the validation list
                cut = len(lines) - len(lines) // 10
                (folder / "list_val.txt").write_text("".join(lines[cut:]))
                lines = lines[:cut]
            (folder / f"list_{split}.txt").write_text("".join(lines))

    schedule = plan_images(config, cameras=15, name=name, max_pids=3000)
    splits = _splits(schedule, {})
    for split, table in splits.items():
        table["lists"] = [f"list_{split}.txt"]
    splits["train"]["lists"].append("list_val.txt")
    return Layout(
        title=f"pedestrians, MSMT17 layout ({release.upper()})",
        cameras=15,
        visits=schedule.visits,
        settings={
            "reader": "lists",
            "protocol": "market",
            "pattern": r"\d{4}_\d{3,}_(?P<camid>\d{2})_.*\.jpg",
            "identities": "numbered-apart",
            "variants": MSMT17_FOLDERS,
            "splits": splits,
        },
        write_lists=write_lists,
    )


def cuhk03_np(config: SyntheticConfig, *, boxes: str) -> Layout:
    """CUHK03-NP with "labeled" or "detected" boxes: two cameras, images of 160x60."""
    schedule = plan_images(
        config,
        cameras=2,
        size=(160, 60),
        name=lambda split, pid, camera, visit, k: (
            f"{MARKET_FOLDERS[split]}/{pid:04d}_c{camera}_{visit * 10 + k}.png"
        ),
    )
    return Layout(
        title=f"pedestrians, CUHK03-NP layout, {boxes}",
        cameras=2,
        visits=schedule.visits,
        settings={
            "reader": "cuhk03",
            "boxes": boxes,
            "protocol": "market",
            "pattern": r"(?P<pid>\d{4})_c(?P<camid>\d)_\d+\.png",
            "splits": _splits(schedule, MARKET_FOLDERS),
        },
    )


def cuhk03_classic(config: SyntheticConfig, *, boxes: str) -> Layout:
    """CUHK03's first release as unpacked by `reidkit datasets unpack`, with 20 splits."""
    pids = config.train_pids + config.test_pids
    taken: dict[tuple[int, int], int] = {}

    def name(split: str, pid: int, camera: int, visit: int, k: int) -> str:
        number = taken[pid, camera] = taken.get((pid, camera), 0) + 1
        return f"images_{boxes}/1_{pid:03d}_{camera}_{number + 5 * (camera - 1):02d}.png"

    def write_testsets(folder: Path) -> None:
        rng = np.random.default_rng([config.seed, 13])
        with (folder / "testsets.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["split", "pair", "person"])
            for split in range(20):
                people = rng.permutation(pids)[: config.test_pids] + 1
                if split == 0:
                    people = np.arange(config.train_pids + 1, pids + 1)
                writer.writerows([split, 1, person] for person in sorted(people.tolist()))

    schedule = plan_images(config, cameras=2, size=(160, 60), max_pids=999, name=name)
    return Layout(
        title=f"pedestrians, CUHK03 layout, {boxes}",
        cameras=2,
        visits=schedule.visits,
        settings={
            "reader": "cuhk03",
            "boxes": boxes,
            "protocol": "cuhk03-classic",
            "variants": {str(split): {} for split in range(20)},
            "splits": {"train": {"ids": config.train_pids}}
            | {split: {"ids": config.test_pids} for split in ("query", "gallery")},
        },
        write_lists=write_testsets,
    )


def csv_table(config: SyntheticConfig) -> Layout:
    """Your own data as a CSV table: names as ids, eleven cameras, nested folders, and tracklets
    among the images of the gallery."""
    schedule = plan_images(
        config,
        cameras=11,
        name=lambda split, pid, camera, visit, k: (
            f"people/person {pid}/gate {camera}/{visit:05d}_{k:02d}.jpg"
        ),
    )
    rng = np.random.default_rng([config.seed, 14])
    tracklets = set()  # by their first images
    for pid in range(config.train_pids + 1, config.train_pids + config.test_pids + 1):
        schedule.add("gallery", pid, int(rng.integers(1, 12)), frame_kinds(rng), video=True)
        tracklets.add(schedule.visits[-1].shots[0].image)

    def write_table(folder: Path) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["split", "path", "pid", "camid", "tracklet", "frame"])
        for split, visits in schedule.splits.items():
            for pid, camera, paths in visits:
                walk = f"walk {pid}" if paths[0] in tracklets else ""
                for frame, path in enumerate(paths):
                    place = [walk, frame if walk else ""]
                    writer.writerow([split, path, f"person {pid}", f"gate {camera}", *place])
        (folder / "data.csv").write_text(text.getvalue(), "utf-8", newline="\n")

    splits = _splits(schedule, {})
    splits["gallery"]["tracklets"] = len(tracklets)
    for split in splits.values():
        del split["junk"], split["distractors"]
    return Layout(
        title="pedestrians, as your own data",
        cameras=11,
        visits=schedule.visits,
        settings={
            "reader": "csv",
            "table": "data.csv",
            "protocol": "market",
            "splits": splits,
        },
        write_lists=write_table,
    )


def _splits(schedule: Schedule, folders: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {
        split: ({"folder": folders[split]} if split in folders else {})
        | schedule.counts(split, tracklets=False)
        for split in ("train", "query", "gallery")
    }
