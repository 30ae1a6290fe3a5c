"""Images per second and core of the training input path, beside Pillow with torchvision's v1
transforms: `python benchmarks/input_pipeline.py [--images 512]`.

Both read the same 64x128 JPEGs and give normalised float32 [3, 256, 128] with flip and erasing.
"ours" does all on one core; "ours, device" leaves normalisation and erasing to the whole batch on
the device, so that only decode, resize and flip are the core's work. CPU time, one thread, the best
of several rounds that take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as v1

from reidkit.config import AugmentConfig, ClipConfig
from reidkit.data.decode import read_tensor
from reidkit.data.loading import TrainImages
from reidkit.data.sampler import SampleKey
from reidkit.image import read_image
from reidkit.preprocess import Preprocess
from reidkit.synthetic import LAYOUTS
from reidkit.types import Sample

BATCH = 64
PREPROCESS = Preprocess()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        LAYOUTS["market1501"](Path(folder) / "m", train_pids=12, test_pids=1, seed=0, workers=1)
        files = sorted((Path(folder) / "m/bounding_box_train").glob("*.jpg"))
        paths = [files[k % len(files)] for k in range(options.images)]
        report(paths, options.rounds)


def report(paths: list[Path], rounds: int) -> None:
    """Times the three paths in turn and prints a table."""
    source = ours(paths)
    batches = [
        [SampleKey(k, (0, 0, k)) for k in range(start, min(start + BATCH, len(paths)))]
        for start in range(0, len(paths), BATCH)
    ]
    cpu = torch.device("cpu")
    ways: dict[str, Callable[[], None]] = {
        "Pillow + torchvision v1": lambda: peer(paths),
        "ours, the same output": lambda: each(
            batches, lambda batch: source.finish(source.batch(batch), cpu)
        ),
        "ours, batch work on the device": lambda: each(batches, source.batch),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, run in ways.items():
            started = time.process_time()
            run()
            best[name] = min(best[name], (time.process_time() - started) / len(paths))
    base = best["Pillow + torchvision v1"]
    for name, seconds in best.items():
        rate, ratio = 1 / seconds, base / seconds
        print(f"{name:32} {seconds * 1e6:6.0f} us  {rate:7.0f} images/s  {ratio:5.2f}x")
    differences = [
        np.abs(
            PREPROCESS.pixels(read_image(path)).astype(int)
            - PREPROCESS.pixels(read_tensor(path)).astype(int)
        )
        for path in paths[:32]
    ]
    print(f"largest difference from Pillow's pixels: {max(d.max() for d in differences)} of 255")


def peer(paths: list[Path]) -> None:
    """Pillow and torchvision v1, an image at a time, stacked as a loader does."""
    transform = v1.Compose(
        [
            v1.Resize(PREPROCESS.size, v1.InterpolationMode.BICUBIC),
            v1.RandomHorizontalFlip(),
            v1.ToTensor(),
            v1.Normalize(PREPROCESS.mean, PREPROCESS.std),
            v1.RandomErasing(),
        ]
    )
    for start in range(0, len(paths), BATCH):
        images = []
        for path in paths[start : start + BATCH]:
            with Image.open(path) as image:
                images.append(transform(image.convert("RGB")))
        torch.stack(images)


def ours(paths: list[Path]) -> TrainImages:
    return TrainImages(
        [Sample(path.name, 1, 1) for path in paths],
        root=paths[0].parent,
        preprocess=PREPROCESS,
        augment=AugmentConfig(),
        clip=ClipConfig(),
        masks=None,
    )


def each(batches: list[list[SampleKey]], run: Callable[[list[SampleKey]], object]) -> None:
    for batch in batches:
        run(batch)


if __name__ == "__main__":
    main()
