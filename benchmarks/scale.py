"""Sizes that no test can have: time and peak memory of each case in a process of its own.

    python benchmarks/scale.py images     --work DIR    a data set of 1,000,000 images
    python benchmarks/scale.py identities               100,000 identities in the samplers
    python benchmarks/scale.py features   --work DIR    searching a features file of 20 GB

Ranking and re-ranking at the size of MSMT17: ranking.py --scale msmt17. An index of two million
vectors: search.py --index DIR.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from reidkit.choices import SamplerKind
from reidkit.config import SamplerConfig, load_run_config, preset_layer
from reidkit.data.loading import TrainImages, train_loader
from reidkit.data.manifest import open_dataset
from reidkit.data.sampler import TrainBatches, epoch_batches
from reidkit.features import read_features
from reidkit.index.searching import search_features
from reidkit.preprocess import Preprocess

MANIFEST = """\
format = 1
name = "million"
title = "Market-1501's names, a million times"
reader = "pattern"
protocol = "market"
cameras = 6
pattern = '(?P<pid>\\d+)_c(?P<camid>\\d)_\\d+\\.jpg'
[splits.train]
folder = "train"
[splits.query]
folder = "query"
[splits.gallery]
folder = "gallery"
"""
LINKS = 50_000
"""Names per file: file systems limit hard links."""


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Prints the seconds that the block took, and the peak memory of the process so far."""
    start = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:48s} {time.perf_counter() - start:8.2f} s {peak:8,.0f} MiB", flush=True)


def measure_images(work: Path, count: int, identities: int) -> None:
    root = work / "million"
    if not root.exists():
        with measured(f"(creating {count:,} names)"):
            create_images(root, count, identities)
    with measured("open the data set"):
        dataset = open_dataset(str(root))
    print(len(dataset.train), "training images,", len(dataset.query), "queries")
    config = load_run_config([preset_layer("iaunet")])
    with measured("training images with labels"):
        images = TrainImages(
            dataset.train,
            root=dataset.root,
            preprocess=Preprocess(),
            augment=config.augment,
            clip=config.clip,
            masks=None,
        )
    with measured("batches of an epoch, the first batch read"):
        batches = TrainBatches(images.labels, config.sampler, seed=0, epochs=1)
        loader = train_loader(images, batches, workers=0, pin=False)
        next(iter(loader))
    with measured("all batches of an epoch composed"):
        print(sum(1 for _ in batches), "batches")


def create_images(root: Path, count: int, identities: int) -> None:
    for split, images in (("train", count), ("query", 100), ("gallery", 1000)):
        folder = root / split
        folder.mkdir(parents=True)
        for number in range(images):
            if number % LINKS == 0:
                source = root / f"{split}-{number}.jpg"
                Image.new("RGB", (64, 128), (number % 251, 80, 120)).save(source)
            name = f"{number % identities:06d}_c{(number + len(split)) % 6 + 1}_{number:07d}.jpg"
            (folder / name).hardlink_to(source)
    (root / "manifest.toml").write_text(MANIFEST)


def measure_identities(count: int, identities: int) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(count) % identities).tolist()
    kinds: tuple[SamplerKind, ...] = ("groups", "pk", "shuffle")
    for kind in kinds:
        with measured(f"{kind}: {count:,} images, {identities:,} identities"):
            epoch_batches(labels, SamplerConfig(kind, 64), seed=0, epoch=0)


def measure_features(work: Path, gigabytes: float, dim: int) -> None:
    gallery, queries = work / "gallery.h5", work / "queries.h5"
    count = int(gigabytes * 1e9 / (4 * dim))
    if not gallery.exists():
        with measured(f"(writing {count:,} x {dim})"):
            write_random(gallery, count, dim)
            write_random(queries, 200, dim)
    with measured(f"open {gallery.stat().st_size / 1e9:.1f} GB"):
        features = read_features(gallery)
    with measured("search 200 queries"):
        found = search_features(read_features(queries), features, 10)
    assert all(len(hits) == 10 for hits in found)


def write_random(path: Path, count: int, dim: int) -> None:
    rng = np.random.default_rng(count)
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("features", (count, dim), np.float32)
        for start in range(0, count, 20_000):
            stop = min(start + 20_000, count)
            rows[start:stop] = rng.standard_normal((stop - start, dim), np.float32)
        file["pids"] = np.arange(count) % 1000
        file["camids"] = np.zeros(count, np.int64)
        file["role"] = np.zeros(count, np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("case", choices=("images", "identities", "features"))
    parser.add_argument("--work", type=Path, default=Path("scale"))
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--identities", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--dim", type=int, default=2048)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.case == "images":
        measure_images(args.work, args.count, args.identities)
    elif args.case == "identities":
        measure_identities(args.count, args.identities)
    else:
        measure_features(args.work, args.gigabytes, args.dim)


if __name__ == "__main__":
    main()
