"""Measures the mask store: writing, bytes, random reads, and how near its targets are.

    python benchmarks/mask_store.py [--images 12936] [--workers 2]

Everything is drawn in a temporary folder: some 600 people with exact label maps, repeated under
other names until there are as many label maps as asked for. Tables go to stdout.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from reidkit.data.manifest import locate, read_dataset
from reidkit.masks import grid
from reidkit.masks.layout import Header, create
from reidkit.masks.lip import default_grouping, load_label_set
from reidkit.masks.matching import label_stem, match_labels
from reidkit.masks.sources import FileSource, index_maps
from reidkit.masks.store import MaskStore, write_store
from reidkit.synthetic import LAYOUTS
from reidkit.types import PARTS, Dataset, Sample

MARS_FRAMES = 509_914
STAGES = ((32, 16), (16, 8))
READS = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12_936)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        dataset, source = draw(work, arguments.images)
        path = work / "masks.h5"
        write(path, dataset, source)
        mars = blow_up(path, work / "mars.h5")
        for name, file in (("Market-1501", path), ("MARS", mars)):
            reads(name, file, arguments.workers)
        images = [sample.path for sample in dataset.train[:400]]
        compressed(source, images, work / "compressed.h5")
        fidelity(source, images)


def draw(work: Path, images: int) -> tuple[Dataset, FileSource]:
    """A drawn data set whose training split names each image many times over."""
    LAYOUTS["market1501"](work / "people", train_pids=36, test_pids=1, seed=0)
    manifest, root = locate(str(work / "people"))
    drawn = read_dataset(manifest, root)
    names = [sample.path for sample in drawn.train]
    labels = root / str(manifest.labels)
    samples = []
    for number in range(images):
        original = names[number % len(names)]
        name = f"bounding_box_train/{number // 17:04d}_c{number % 6 + 1}s1_{number:06d}_01.jpg"
        (root / f"more/{name}").parent.mkdir(parents=True, exist_ok=True)
        os.link(root / original, root / f"more/{name}")
        file = labels / f"more/{name[:-4]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(labels / f"{original[:-4]}.png", file)
        samples.append(Sample(f"more/{name}", pid=number // 17, camid=number % 6 + 1))
    dataset = replace(drawn, train=tuple(samples))
    matching = match_labels([s.path for s in samples], labels, stem=label_stem).complete()
    return dataset, index_maps(root, matching, default_grouping(load_label_set("lip")))


def write(path: Path, dataset: Dataset, source: FileSource) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    write_store(path, dataset, dataset.train, source)  # type: ignore[arg-type]  # Samples
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count, size = len(dataset.train), path.stat().st_size
    print(f"write    {count:,} label maps of 64x128: {wall:.1f} s ({cpu:.1f} s of CPU time),")
    print(f"         {size:,} bytes, {size / count:.1f} an image")


def blow_up(path: Path, out: Path) -> Path:
    """A store of as many masks as MARS has frames, under names like MARS's."""
    names = [
        f"bbox_train/{pid:04d}/{pid:04d}C{n // 100 % 6 + 1}T{n // 60 % 14:04d}F{n:06d}.jpg"
        for n, pid in ((n, n // 800) for n in range(MARS_FRAMES))
    ]
    with h5py.File(path) as file:
        masks = file["masks"][:]
    header = Header(
        dataset="mars",
        fingerprint="0" * 64,
        split="train",
        source="benchmark",
        key="benchmark",
        parts=PARTS,
        grouping={},
    )
    layout = create(out, header, names)
    with out.open("r+b") as file:
        file.seek(layout.masks_offset)
        file.write(masks[np.arange(MARS_FRAMES) % len(masks)].tobytes())
        file.seek(layout.done_offset)
        file.write(np.packbits(np.ones(MARS_FRAMES, bool), bitorder="little").tobytes())
    size = out.stat().st_size
    print(
        f"MARS     {MARS_FRAMES:,} frames: {size / 1e6:.1f} MB, {size / MARS_FRAMES:.1f} bytes each"
    )
    return out


def reads(name: str, path: Path, workers: int) -> None:
    """Random masks a second and core, from several processes at once."""
    for batch in (1, 16, 64):
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            jobs = [
                (path, batch, READS if batch > 1 else READS // 10, seed) for seed in range(workers)
            ]
            rates = pool.starmap(read_at_random, jobs, chunksize=1)
        wall, cpu = (min(rate[kind] for rate in rates) for kind in (0, 1))
        print(
            f"read     {name:12} {workers} workers, {batch:2} at a time:"
            f" {wall:10,.0f} masks/s each by the clock, {cpu:10,.0f} by CPU time"
        )


def read_at_random(path: Path, batch: int, count: int, seed: int) -> tuple[float, float]:
    store = MaskStore.open(path)
    rng = np.random.default_rng(seed)
    names = np.array(store.paths, object)
    batches = [names[rng.integers(0, len(names), batch)].tolist() for _ in range(count // batch)]
    store.read(batches[0])
    wall, cpu = time.perf_counter(), time.process_time()
    for paths in batches:
        store.read(paths)
    done = batch * len(batches)
    return done / (time.perf_counter() - wall), done / (time.process_time() - cpu)


def compressed(source: FileSource, images: list[str], out: Path) -> None:
    """What the plain way would give: maps of 64x32 as they are, deflated, read through HDF5."""
    small = np.stack([part_map[1::2, 1::2] for part_map in source.part_maps(images)])
    maps = small[np.random.default_rng(0).integers(0, len(small), 12_936)]
    for rows in (1, 16, 64):
        with h5py.File(out, "w") as file:
            file.create_dataset("maps", data=maps, chunks=(rows, 64, 32), compression="gzip")
        order = np.random.default_rng(1).integers(0, len(maps), 5000)
        with h5py.File(out) as file:
            data = file["maps"]
            start = time.process_time()
            for row in order:
                data[row]
            rate = len(order) / (time.process_time() - start)
        size = out.stat().st_size / len(maps)
        print(
            f"compare  64x32, deflate, chunks of {rows:2}: {size:4.0f} bytes, {rate:7,.0f} masks/s"
        )


def fidelity(source: FileSource, images: list[str]) -> None:
    """Mean absolute difference between the loss's targets and the authors', 0..1."""
    maps = list(source.part_maps(images))
    canvas = torch.stack([authors_canvas(part_map) for part_map in maps])
    print("target   mean absolute difference from the authors' at 32x16, at 16x8, and the mean")
    hard = [canvas_to(canvas, size) for size in STAGES]
    best = [torch.minimum(t, 1 - t).mean().item() for t in hard]
    print(f"  {'best of any part indices at the points themselves':52} {line(best)}")
    for size in ((32, 16), (44, 22), (48, 24), (63, 31), (64, 32), (128, 64)):
        shares = canvas_to(canvas, size)
        by_point = torch.cat([1 - shares.sum(1, keepdim=True), shares], 1).argmax(1)
        whole = torch.cat([1 - canvas.sum(1, keepdim=True), canvas], 1)
        by_area = F.interpolate(whole, size=size, mode="area").argmax(1)
        packed = -(-size[0] * size[1] // 3)
        for rule, index in (("point", by_point), ("majority", by_area)):
            label = f"map of {size[0]}x{size[1]}, {rule} ({packed} bytes)"
            print(f"  {label:52} {line(differences(index, canvas))}")
    values = np.stack([grid.sample_points(part_map, num_labels=5) for part_map in maps])
    spread = values[:, grid.spread_index(grid.GRIDS, grid.MAP_SIZE)]
    ours = torch.from_numpy(spread.reshape(-1, *grid.MAP_SIZE))
    label = f"the store ({grid.row_bytes(grid.GRIDS, 5)} bytes, read as 63x31)"
    print(f"  {label:52} {line(differences(ours, canvas))}")


def authors_canvas(part_map: np.ndarray) -> torch.Tensor:
    """Four masks, bicubic to 256x128 by Pillow: float32 [4, 256, 128]."""
    planes = [
        np.array(
            Image.fromarray(((part_map == part) * 255).astype(np.uint8)).resize(
                (128, 256), Image.Resampling.BICUBIC
            )
        )
        for part in range(1, 5)
    ]
    return torch.from_numpy(np.stack(planes)).float() / 255


def canvas_to(planes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=True)


def differences(index: torch.Tensor, canvas: torch.Tensor) -> list[float]:
    planes = F.one_hot(index.long(), 5).permute(0, 3, 1, 2)[:, 1:].float()
    return [
        (canvas_to(planes, size) - canvas_to(canvas, size)).abs().mean().item() for size in STAGES
    ]


def line(values: list[float]) -> str:
    return "  ".join(f"{value:.4f}" for value in [*values, float(np.mean(values))])


if __name__ == "__main__":
    main()
