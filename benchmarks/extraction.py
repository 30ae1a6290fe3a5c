"""Extraction by ONNX Runtime, from JPEG files to embeddings, beside bare sessions:

    python benchmarks/extraction.py [MODEL.onnx ...] [--images 256] [--rounds 5] [--device cpu]
    python benchmarks/extraction.py MODEL.onnx --memory 20000

Without a model: a small network of OSNet's kind and ResNet-50 iaunet, both untrained.

Bare sessions get one ready float32 batch again and again: "default" is what
`InferenceSession(path)` does with batches of 64, "no spinning" the same without spinning threads,
"best" one session of one thread that several threads call with batches of 16. "end to end" is
`reidkit extract`: decode, resize, normalise, embed. All take turns in every round; ratios are
medians over rounds. `--memory N` prints resident memory after tenths of N images. On CUDA "best"
is one caller, as the device is one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reidkit.runtime.embedder import load_embedder
from reidkit.runtime.execution import Execution
from reidkit.runtime.extraction import embed_images

BATCH, LARGE = 16, 64
CORES = Execution().cores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", type=int, default=0, metavar="N")
    options = parser.parse_args()
    if options.images % LARGE:
        parser.error(f"--images must be a multiple of {LARGE}, the largest batch")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), options.memory or options.images)
        models = options.models or [small_network(Path(folder)), iaunet(Path(folder))]
        for model in models:
            if options.memory:
                report_memory(model, paths, options.device)
            else:
                report_speed(model, paths, options.rounds, options.device)


def write_images(folder: Path, count: int) -> list[Path]:
    """JPEGs of Market-1501's size: gradients with coarse and fine noise."""
    rng = np.random.default_rng(0)
    height = np.linspace(0, 1, 128)[:, None, None]
    paths = []
    for k in range(count):
        top, bottom = rng.integers(0, 256, (2, 3))
        coarse = rng.normal(0, 40, (16, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
        fine = rng.normal(0, 6, (128, 64, 3))
        pixels = np.clip(height * top + (1 - height) * bottom + coarse + fine, 0, 255)
        paths.append(folder / f"{k:06d}.jpg")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def report_speed(model: Path, paths: list[Path], rounds: int, device: str) -> None:
    """Prints images per second of every way, and their ratios."""
    embedder = load_embedder(model, device=device)
    one = 1 if device == "cpu" else 0
    count = len(paths)
    ways: dict[str, Callable[[], None]] = {
        "bare, default": bare(model, count, device, spinning=True, threads=0, batch=LARGE),
        "bare, no spinning": bare(model, count, device, spinning=False, threads=0, batch=LARGE),
        "bare, best": bare(model, count, device, spinning=False, threads=one, batch=BATCH),
        "end to end": lambda: check(embed_images(embedder, paths), count),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if round_:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    print(f"{model.name}: {len(paths)} images, {CORES} cores, {rounds} rounds")
    for name, times in seconds.items():
        ratios = [
            statistics.median(b / t for b, t in zip(seconds[base], times, strict=True))
            for base in ("bare, default", "bare, best")
        ]
        rate = len(paths) / statistics.median(times)
        print(
            f"  {name:18} {rate:8.1f} images/s  {ratios[0]:5.2f} x default {ratios[1]:5.2f} x best"
        )
    print(f"  resident memory {resident():.0f} MB, with all four in one process")


def bare(
    model: Path, images: int, device: str, *, spinning: bool, threads: int, batch: int
) -> Callable[[], None]:
    """Runs a session on `images` images of one ready batch; with sessions of one thread, as many
    threads as there are cores call it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    providers = ["CUDAExecutionProvider"] if device != "cpu" else []
    if providers:
        ort.preload_dlls()
    session = ort.InferenceSession(model, options, providers=[*providers, "CPUExecutionProvider"])
    image, output = session.get_inputs()[0], session.get_outputs()[-1]
    size = [
        side if isinstance(side, int) else default
        for side, default in zip(image.shape[2:], (256, 128), strict=True)
    ]
    shape = (batch, 3, *size)
    callers = CORES if threads == 1 else 1
    inputs = [np.random.default_rng(k).standard_normal(shape, np.float32) for k in range(callers)]

    def work(turns: Iterator[int], array: Any) -> None:
        while next(turns, None) is not None:  # a list's iterator may be shared by threads
            session.run([output.name], {image.name: array})

    def run() -> None:
        turns = iter([*range(images // batch)])
        workers = [threading.Thread(target=work, args=(turns, array)) for array in inputs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return run


def check(rows: Any, count: int) -> None:
    assert len(rows) == count, f"{len(rows)} rows for {count} images"


def report_memory(model: Path, paths: list[Path], device: str) -> None:
    """Prints resident memory after tenths of the images."""
    embedder = load_embedder(model, device=device)
    steps = [len(paths) * k // 10 for k in (1, 2, 5, 10)]
    print(f"{model.name}: resident memory in MB; 0 images: {resident():.0f}", flush=True)

    def on_progress(done: int, total: int) -> None:
        if steps and done >= steps[0]:
            steps.pop(0)
            print(f"  {done:6} of {total} images: {resident():.0f}", flush=True)

    embed_images(embedder, paths, on_progress=on_progress)


def resident() -> float:
    """Resident memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


def small_network(folder: Path) -> Path:
    """A network of OSNet's kind in an ONNX file: 1x1 and depthwise 3x3 convolutions, 1.8 million
    parameters, 0.85 billion multiplications at 256x128."""
    import torch
    from torch import nn

    def separable(inner: int, outer: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inner, outer, 1, bias=False),
            nn.Conv2d(outer, outer, 3, padding=1, groups=outer, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
        )

    class Block(nn.Module):
        def __init__(self, inner: int, outer: int) -> None:
            super().__init__()
            middle = outer // 4
            self.body = nn.Sequential(
                separable(inner, middle),
                separable(middle, middle),
                separable(middle, middle),
                nn.Conv2d(middle, outer, 1, bias=False),
                nn.BatchNorm2d(outer),
            )
            self.skip = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.skip(x) + self.body(x))

    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers: list[nn.Module] = [*stem, nn.MaxPool2d(3, 2, 1), Block(64, 256)]
    layers += [Block(256, 256), Block(256, 256), nn.Conv2d(256, 256, 1), nn.AvgPool2d(2)]
    layers += [Block(256, 384), Block(384, 384), Block(384, 384), nn.Conv2d(384, 384, 1)]
    layers += [nn.AvgPool2d(2), Block(384, 512), Block(512, 512), nn.Conv2d(512, 512, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 512)]
    path = folder / "small.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            nn.Sequential(*layers).eval(),
            (torch.zeros(2, 3, 256, 128),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            external_data=False,
            verbose=False,
        )
    return path


def iaunet(folder: Path) -> Path:
    """An untrained ResNet-50 iaunet in an ONNX file."""
    import torch

    from reidkit import checkpoint
    from reidkit.export import export_onnx
    from reidkit.preprocess import Preprocess

    header = checkpoint.Header(arch="iaunet", arch_config={}, preprocess=Preprocess(), num_ids=751)
    model = checkpoint.build(header).train()
    with torch.no_grad():
        model(torch.randn(8, 3, 256, 128))  # so that batch norm has statistics
    checkpoint.save(folder / "iaunet.safetensors", model, header)
    export_onnx(folder / "iaunet.safetensors", folder / "iaunet.onnx")
    return folder / "iaunet.onnx"


if __name__ == "__main__":
    main()
