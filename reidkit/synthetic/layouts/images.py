"""Layouts of single images: DukeMTMC-reID, MSMT17, CUHK03 and a CSV of one's own."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from reidkit.synthetic.drawing import Progress
from reidkit.synthetic.layouts.folder import Writer
from reidkit.synthetic.layouts.planning import Plan, frame_kinds, plan_images

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def write_dukemtmc_reid(
    root: Path,
    *,
    train_pids: int,
    test_pids: int,
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """DukeMTMC-reID: eight cameras, people without a query in the gallery."""
    plan = plan_images(
        train_pids=train_pids,
        test_pids=test_pids,
        seed=seed,
        cameras=8,
        strangers=True,
        name=lambda split, pid, camera, visit, k: (
            f"{MARKET_FOLDERS[split]}/{pid:04d}_c{camera}_f{visit * 40 + k:07d}.jpg"
        ),
    )
    settings = {
        "reader": "pattern",
        "protocol": "market",
        "pattern": r"(?P<pid>\d{4})_c(?P<camid>\d)_f\d+\.jpg",
        "splits": _splits(plan, MARKET_FOLDERS),
    }
    plan.write(
        root,
        layout="dukemtmc-reid",
        title="pedestrians, DukeMTMC-reID layout",
        settings=settings,
        on_progress=on_progress,
        workers=workers,
    )


VARIANTS = {
    "v1": {"train": "train", "query": "test", "gallery": "test"},
    "v2": {"train": "mask_train_v2", "query": "mask_test_v2", "gallery": "mask_test_v2"},
}
"""Folders of MSMT17's two releases."""


def msmt17(version: str) -> Writer:
    """The writer of MSMT17's folders: fifteen cameras, lists, both halves numbered from 0."""

    def write(
        root: Path,
        *,
        train_pids: int,
        test_pids: int,
        seed: int,
        on_progress: Progress | None = None,
        workers: int | None = None,
    ) -> None:
        def number(split: str, pid: int) -> int:
            return pid - 1 if split == "train" else pid - 1 - train_pids

        def name(split: str, pid: int, camera: int, visit: int, k: int) -> str:
            shown = number(split, pid)
            file = f"{shown:04d}_{visit:03d}_{camera:02d}_0303noon_{k:04d}_0.jpg"
            return f"{VARIANTS[version][split]}/{shown:04d}/{file}"

        def lists(folder: Path) -> None:
            for split, visits in plan.splits.items():
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

        plan = plan_images(
            train_pids=train_pids, test_pids=test_pids, seed=seed, cameras=15, name=name, most=3000
        )
        splits = _splits(plan, {})
        for split, table in splits.items():
            files = (
                ["list_train.txt", "list_val.txt"] if split == "train" else [f"list_{split}.txt"]
            )
            table["lists"] = files
        settings = {
            "reader": "lists",
            "protocol": "market",
            "pattern": r"\d{4}_\d{3,}_(?P<camid>\d{2})_.*\.jpg",
            "identities": "numbered-apart",
            "variants": VARIANTS,
            "splits": splits,
        }
        plan.write(
            root,
            layout="msmt17" if version == "v1" else f"msmt17-{version}",
            title=f"pedestrians, MSMT17 layout ({version.upper()})",
            settings=settings,
            on_progress=on_progress,
            workers=workers,
            finish=lists,
        )

    return write


def cuhk03_np(boxes: str) -> Writer:
    """The writer of CUHK03-NP's folders with hand-drawn or detected boxes."""

    def write(
        root: Path,
        *,
        train_pids: int,
        test_pids: int,
        seed: int,
        on_progress: Progress | None = None,
        workers: int | None = None,
    ) -> None:
        plan = plan_images(
            train_pids=train_pids,
            test_pids=test_pids,
            seed=seed,
            cameras=2,
            size=(160, 60),
            name=lambda split, pid, camera, visit, k: (
                f"{MARKET_FOLDERS[split]}/{pid:04d}_c{camera}_{visit * 10 + k}.png"
            ),
        )
        settings = {
            "reader": "cuhk03",
            "boxes": boxes,
            "protocol": "market",
            "pattern": r"(?P<pid>\d{4})_c(?P<camid>\d)_\d+\.png",
            "splits": _splits(plan, MARKET_FOLDERS),
        }
        plan.write(
            root,
            layout=f"cuhk03-np-{boxes}",
            title=f"pedestrians, CUHK03-NP layout, {boxes}",
            settings=settings,
            on_progress=on_progress,
            workers=workers,
        )

    return write


def cuhk03_classic(boxes: str) -> Writer:
    """The writer of CUHK03's release as `datasets unpack` leaves it, with 20 splits."""

    def write(
        root: Path,
        *,
        train_pids: int,
        test_pids: int,
        seed: int,
        on_progress: Progress | None = None,
        workers: int | None = None,
    ) -> None:
        taken: dict[tuple[int, int], int] = {}

        def name(split: str, pid: int, camera: int, visit: int, k: int) -> str:
            number = taken[pid, camera] = taken.get((pid, camera), 0) + 1
            return f"images_{boxes}/1_{pid:03d}_{camera}_{number + 5 * (camera - 1):02d}.png"

        def testsets(folder: Path) -> None:
            rng = np.random.default_rng([seed, 13])
            with (folder / "testsets.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["split", "pair", "person"])
                for split in range(20):
                    people = rng.permutation(train_pids + test_pids)[:test_pids] + 1
                    if split == 0:
                        people = np.arange(train_pids + 1, train_pids + test_pids + 1)
                    writer.writerows([split, 1, person] for person in sorted(people.tolist()))

        plan = plan_images(
            train_pids=train_pids,
            test_pids=test_pids,
            seed=seed,
            cameras=2,
            size=(160, 60),
            most=999,
            name=name,
        )
        settings = {
            "reader": "cuhk03",
            "boxes": boxes,
            "protocol": "cuhk03-classic",
            "variants": {str(split): {} for split in range(20)},
            "splits": {"train": {"ids": train_pids}}
            | {split: {"ids": test_pids} for split in ("query", "gallery")},
        }
        plan.write(
            root,
            layout=f"cuhk03-classic-{boxes}",
            title=f"pedestrians, CUHK03 layout, {boxes}",
            settings=settings,
            on_progress=on_progress,
            workers=workers,
            finish=testsets,
        )

    return write


def write_csv(
    root: Path,
    *,
    train_pids: int,
    test_pids: int,
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """One's own data: names for ids, eleven cameras, nested folders, and tracklets among images in
    the gallery."""
    plan = plan_images(
        train_pids=train_pids,
        test_pids=test_pids,
        seed=seed,
        cameras=11,
        name=lambda split, pid, camera, visit, k: (
            f"people/person {pid}/gate {camera}/{visit:05d}_{k:02d}.jpg"
        ),
    )
    rng = np.random.default_rng([seed, 14])
    walks = set()
    for pid in range(train_pids + 1, train_pids + test_pids + 1):
        walks.add(len(plan.visits))
        plan.add("gallery", pid, int(rng.integers(1, 12)), frame_kinds(rng), video=True)
    tracklets = {plan.visits[number].shots[0].image for number in walks}

    def table(folder: Path) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["split", "path", "pid", "camid", "tracklet", "frame"])
        for split, visits in plan.splits.items():
            for pid, camera, paths in visits:
                walk = f"walk {pid}" if paths[0] in tracklets else ""
                for frame, path in enumerate(paths):
                    place = [walk, frame if walk else ""]
                    writer.writerow([split, path, f"person {pid}", f"gate {camera}", *place])
        (folder / "data.csv").write_text(text.getvalue(), "utf-8", newline="\n")

    splits = _splits(plan, {})
    splits["gallery"]["tracklets"] = len(walks)
    for split in splits.values():
        del split["junk"], split["distractors"]
    settings = {
        "reader": "csv",
        "table": "data.csv",
        "protocol": "market",
        "splits": splits,
    }
    plan.write(
        root,
        layout="csv",
        title="pedestrians, as one's own data",
        settings=settings,
        on_progress=on_progress,
        workers=workers,
        finish=table,
    )


def _splits(plan: Plan, folders: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {
        split: ({"folder": folders[split]} if split in folders else {})
        | plan.counts(split, tracklets=False)
        for split in ("train", "query", "gallery")
    }
