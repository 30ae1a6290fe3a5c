"""Measures the mask store: writing, bytes, random reads, and the error of the loss's targets.

    python benchmarks/mask_store.py [--images 12936] [--workers 2]

Works in a temporary folder on synthetic people with exact label maps, whose files are linked under
new names until there are as many as requested. Tables go to stdout.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from reidkit.data.manifest import locate, read_dataset
from reidkit.masks import writer
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.matching import label_stem, match_labels
from reidkit.masks.sources import FileSource, index_maps
from reidkit.masks.store import MaskStore
from reidkit.masks.writer import stored_map, write_store
from reidkit.part_targets import part_targets
from reidkit.synthetic import LAYOUTS
from reidkit.types import Dataset, Sample, frames

Size = tuple[int, int]

LAYOUTS_MEASURED = ("market1501", "dukemtmc-reid", "msmt17")
IMAGE_SIZES: tuple[Size, ...] = (
    *((60, 30), (128, 64), (160, 60), (256, 128), (300, 150)),
    *((333, 131), (400, 200), (450, 225), (480, 320), (500, 250), (800, 400)),
)
MAPS: dict[Size, tuple[Size, ...]] = {
    # network's input: attention maps after the stages
    (256, 128): ((64, 32), (32, 16), (16, 8)),
    (128, 64): ((32, 16), (16, 8), (8, 4)),
    (384, 128): ((96, 32), (48, 16), (24, 8)),
    (64, 32): ((16, 8), (8, 4)),
}
READS, ROUNDS = 40_000, 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12_936)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        part_maps: list[np.ndarray] = []
        for layout in LAYOUTS_MEASURED:
            work = Path(folder) / layout
            dataset, source = synthetic(layout, work, arguments.images)
            write(layout, work / "masks.h5", dataset, source)
            reads(layout, work / "masks.h5", arguments.workers)
            part_maps += source.part_maps([s.path for s in frames(dataset.train[:12])])
        sizes(part_maps)
        errors(part_maps)


def synthetic(layout: str, work: Path, images: int) -> tuple[Dataset, FileSource]:
    """A synthetic data set whose training split names each image many times over."""
    LAYOUTS[layout](work / "people", train_pids=24, test_pids=1, seed=0, workers=1)
    manifest, root = locate(str(work / "people"))
    dataset = read_dataset(manifest, root)
    names = [sample.path for sample in frames(dataset.train)]
    labels = root / str(manifest.labels)
    samples = []
    for number in range(images):
        original = names[number % len(names)]
        name = f"more/bounding_box_train/{number // 17:04d}_c{number % 6 + 1}s1_{number:06d}_01.jpg"
        for old, new in (
            (root / original, root / name),
            (labels / f"{original[:-4]}.png", labels / f"{name[:-4]}.png"),
        ):
            new.parent.mkdir(parents=True, exist_ok=True)
            os.link(old, new)
        samples.append(Sample(name, pid=number // 17, camid=number % 6 + 1))
    dataset = replace(dataset, train=tuple(samples))
    matching = match_labels([s.path for s in samples], labels, stem=label_stem).complete()
    return dataset, index_maps(root, matching, default_grouping(load_label_set("lip")))


def write(name: str, path: Path, dataset: Dataset, source: FileSource) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    write_store(path, dataset, list(frames(dataset.train)), source)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count, size = len(dataset.train), path.stat().st_size
    print(f"write {name:14} {count:,} label maps: {wall:.1f} s ({cpu:.1f} s of CPU time),", end=" ")
    print(f"{size / count:.0f} bytes per image")


def reads(name: str, path: Path, workers: int) -> None:
    """Random masks per second and core, from several processes at once: the best round of each."""
    for batch in (1, 64):
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            jobs = [(path, batch, READS, seed) for seed in range(workers)]
            rates = pool.starmap(random_reads, jobs, chunksize=1)
        wall, cpu = (min(rate[kind] for rate in rates) for kind in (0, 1))
        print(f"read  {name:14} {workers} workers, batches of {batch:2}:", end=" ")
        print(f"{wall:8,.0f} masks/s each by the clock, {cpu:8,.0f} by CPU time")


def random_reads(path: Path, batch: int, count: int, seed: int) -> tuple[float, float]:
    masks = MaskStore.open(path)
    rng = np.random.default_rng(seed)
    names = np.array(masks.paths, object)
    batches = [names[rng.integers(0, len(names), batch)].tolist() for _ in range(count // batch)]
    masks.read(batches[0])
    wall, cpu = [], []
    for start in range(0, len(batches), len(batches) // ROUNDS):
        some = batches[start : start + len(batches) // ROUNDS]
        clocks = time.perf_counter(), time.process_time()
        for paths in some:
            masks.read(paths)
        wall.append(batch * len(some) / (time.perf_counter() - clocks[0]))
        cpu.append(batch * len(some) / (time.process_time() - clocks[1]))
    return max(wall), max(cpu)


def enlarged(part_map: np.ndarray, size: Size, seed: int) -> np.ndarray:
    """A part map at another size, its outlines smoothed, shifted and slightly rotated, so that they
    do not follow the pixels it was rendered with."""
    angle, (dx, dy) = np.random.default_rng(seed).uniform(-6, 6), (seed * 0.37 % 1, seed * 0.61 % 1)
    planes = []
    for part in range(5):
        plane = Image.fromarray(((part_map == part) * 255.0).astype(np.float32))
        fine = plane.resize((size[1] * 2, size[0] * 2), Image.Resampling.BICUBIC)
        turned = fine.rotate(angle, Image.Resampling.BICUBIC, translate=(dx, dy))
        planes.append(np.asarray(turned.resize((size[1], size[0]), Image.Resampling.BOX)))
    return np.argmax(planes, axis=0).astype(np.uint8)


def authors_targets(part_map: np.ndarray, input_size: Size) -> torch.Tensor:
    """Masks of 0/255 through Pillow's bicubic resize, width first: float32 [1, 4, *input_size]."""
    planes = []
    for part in range(1, 5):
        mask = Image.fromarray(((part_map == part) * 255).astype(np.uint8))
        for size in ((input_size[1], mask.height), (input_size[1], input_size[0])):
            mask = mask.resize(size, Image.Resampling.BICUBIC)
        planes.append(np.asarray(mask))
    return torch.from_numpy(np.stack(planes)).float()[None] / 255


def relative_errors(part_maps: list[np.ndarray]) -> list[float]:
    """sum |target - authors'| / sum authors', in %, for every map of MAPS."""
    stored = torch.from_numpy(np.stack([stored_map(m, num_parts=4) for m in part_maps]))
    source_sizes = torch.tensor([m.shape for m in part_maps])
    found = []
    for input_size, map_sizes in MAPS.items():
        canvas = torch.cat([authors_targets(m, input_size) for m in part_maps])
        for map_size in map_sizes:
            theirs = F.interpolate(canvas, size=map_size, mode="bilinear", align_corners=True)
            ours = part_targets(
                stored,
                num_parts=4,
                input_size=input_size,
                map_size=map_size,
                source_sizes=source_sizes,
            )
            found.append(100 * float((ours - theirs).abs().sum() / theirs.sum()))
    return found


def errors(part_maps: list[np.ndarray]) -> None:
    """Error of the targets for every image size, input size and map size."""
    heading = [f"{h}x{w}:{m[0]}x{m[1]}" for (h, w), maps in MAPS.items() for m in maps]
    print("error of the targets in %, by image size and input:map", *heading, sep="\n  ")
    for size in IMAGE_SIZES:
        scaled = [enlarged(m, size, seed) for seed, m in enumerate(part_maps)]
        print(f"  {size[0]}x{size[1]:<6}", *(f"{e:5.2f}" for e in relative_errors(scaled)))


def sizes(part_maps: list[np.ndarray]) -> None:
    """What other stored sizes would give: bytes, microseconds to inflate, largest error."""
    import zlib

    adopted = writer.STORED_SIZE
    print("stored size: bytes, us to inflate, largest error; images of 128x64, 400x200, 800x400")
    for size in ((128, 64), (256, 128), (320, 160), (400, 200), (512, 256)):
        writer.STORED_SIZE = size
        line = []
        for image in ((128, 64), (400, 200), (800, 400)):
            scaled = [enlarged(m, image, seed) for seed, m in enumerate(part_maps)]
            packed = [zlib.compress(stored_map(m, num_parts=4).tobytes(), 9) for m in scaled]
            start = time.process_time()
            for _ in range(20):
                for data in packed:
                    zlib.decompress(data, bufsize=size[0] * size[1])
            inflate = (time.process_time() - start) / (20 * len(packed))
            line.append(f"{np.mean([len(d) for d in packed]):5.0f} bytes {1e6 * inflate:4.0f} us")
            line.append(f"{max(relative_errors(scaled)):.2f} %")
        print(f"  {size[0]}x{size[1]:<5}", *line)
    writer.STORED_SIZE = adopted


if __name__ == "__main__":
    main()
