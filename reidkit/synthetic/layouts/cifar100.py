"""CIFAR-100's layout with synthetic objects of 32x32 pixels.

Each class has its own shape, two colours and stripes, and each image is another view of it. There
are no people and no label maps.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from reidkit.synthetic.layouts.folder import SyntheticConfig, new_folder, write_manifest
from reidkit.synthetic.visits import Progress, encode

SIDE, SCALE = 32, 4
IMAGES = {"train": 24, "test": 6}
"""Number of images per class in each split."""


def write_cifar100(
    root: Path,
    *,
    train_pids: int,
    test_pids: int,
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Writes `train_pids` classes; `test_pids` is ignored, as both splits have the same classes."""
    SyntheticConfig(train_pids, test_pids=1, seed=seed).check(max_pids=101)
    names = [f"thing{number:02d}" for number in range(train_pids)]
    total, done = train_pids * sum(IMAGES.values()), 0
    with new_folder(root) as folder:
        for label, name in enumerate(names):
            for half, (split, count) in enumerate(IMAGES.items()):
                (folder / split / name).mkdir(parents=True)
                for number in range(count):
                    view = np.random.default_rng([seed, 15, label, half, number])
                    pixels = draw_object(np.random.default_rng([seed, 16, label]), view)
                    path = folder / split / name / f"{number:05d}.png"
                    path.write_bytes(encode(pixels, "PNG", compress_level=3))
                    done += 1
                    if on_progress is not None:
                        on_progress(done, total)
        write_manifest(
            folder,
            layout="cifar100",
            title="things, CIFAR-100 layout",
            seed=seed,
            settings={
                "reader": "pattern",
                "task": "classification",
                "cameras": "none",
                "identities": "same",
                "pattern": r"(?P<pid>[^/]+)/\d+\.png",
                "splits": {
                    split: {
                        "folder": folder_name,
                        "images": train_pids * IMAGES[folder_name],
                        "ids": train_pids,
                    }
                    for split, folder_name in (("train", "train"), ("query", "test"))
                },
            },
        )


def draw_object(kind: np.random.Generator, view: np.random.Generator) -> NDArray[np.uint8]:
    """An image uint8 [32, 32, 3] of the class sampled by `kind`, from the viewpoint by `view`."""
    side = SIDE * SCALE
    spikes, depth = int(kind.integers(3, 9)), float(kind.uniform(0.35, 1.0))
    colours = kind.integers(20, 236, (2, 3)) + view.integers(-18, 19, (2, 3))
    squash, stripes = float(kind.uniform(0.5, 1.0)), int(kind.integers(0, 4))
    ground = tuple(int(c) for c in view.integers(40, 216, 3))
    image = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(image)
    turn, radius = float(view.uniform(-0.5, 0.5)), side * float(view.uniform(0.3, 0.46))
    centre = side / 2 + view.normal(0, side * 0.05, 2)
    angles = turn + np.pi * np.arange(2 * spikes) / spikes
    reach = radius * np.where(np.arange(2 * spikes) % 2, depth, 1.0)
    outline = np.stack([np.cos(angles) * reach, np.sin(angles) * reach * squash], 1) + centre
    body, mark = (tuple(int(c) for c in colour) for colour in colours)
    draw.polygon([(float(x), float(y)) for x, y in outline], fill=body)
    for stripe in range(stripes):
        y = float(centre[1]) + (stripe - (stripes - 1) / 2) * radius * 0.3
        reach_x = radius * 0.5
        draw.line(
            [(float(centre[0]) - reach_x, y), (float(centre[0]) + reach_x, y)], fill=mark, width=7
        )
    image = image.filter(ImageFilter.GaussianBlur(1.5)).resize((SIDE, SIDE))
    noisy = np.asarray(image, np.float32) + view.normal(0, 6, (SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)
