"""Extraction by ONNX Runtime, from JPEG files to embeddings, beside bare sessions:

    python benchmarks/extraction.py [MODEL.onnx ...] [--images 256] [--rounds 5] [--device cpu]
    python benchmarks/extraction.py MODEL.onnx --memory 20000

Without a model: a small network of OSNet's kind and ResNet-50 iaunet, both untrained.

Bare sessions get one ready float32 batch of the same images again and again: "default" is what
`InferenceSession(path)` does with batches of 64, "no spinning" the same without spinning threads,
"best" one session of one thread that several threads call with batches of 16, "best of 4" the same
with batches of 4. "end to end" is
`reidkit extract`: decode, resize, normalise, embed; "torchvision" the same with --image-backend
torchvision. All take turns in every round; ratios are
medians over rounds. `--memory N` prints resident memory after tenths of N images. On CUDA "best"
is one caller of a batch of 64 that is on the device already: the network alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from models import iaunet, small_network
from numpy.typing import NDArray
from PIL import Image

from reidkit.data.pixels import read_pixels
from reidkit.runtime.embedder import load_embedder
from reidkit.runtime.execution import Execution
from reidkit.runtime.image_files import embed_images
from reidkit.runtime.onnx_runtime import OnnxEmbedder

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
    assert isinstance(embedder, OnnxEmbedder)
    count = len(paths)
    ready = embedder._input(read_pixels(paths[:LARGE], embedder.preprocess)).copy()
    best: dict[str, tuple[int, dict[str, Any]]] = {
        "bare, best": (BATCH, {"threads": 1}),
        "bare, best of 4": (4, {"threads": 1}),
    }
    if device != "cpu":
        best = {"bare, best": (LARGE, {"threads": 0, "bound": True})}
    ways: dict[str, Callable[[], None]] = {
        "bare, default": bare(model, ready, count, device, spinning=True, threads=0),
        "bare, no spinning": bare(model, ready, count, device, spinning=False, threads=0),
        **{
            name: bare(model, ready[:batch], count, device, spinning=False, **way)
            for name, (batch, way) in best.items()
        },
        "end to end": lambda: check(embed_images(embedder, paths), count),
        "torchvision": lambda: check(
            embed_images(embedder, paths, image_backend="torchvision"), count
        ),
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
            for base in ("bare, default", *best)
        ]
        rate = len(paths) / statistics.median(times)
        shown = "  ".join(
            f"{ratio:5.2f} x {base}" for ratio, base in zip(ratios, ("default", *best), strict=True)
        )
        print(f"  {name:18} {rate:8.1f} images/s  {shown.replace('bare, ', '')}")
    print(f"  resident memory {resident():.0f} MB, with all of them in one process")


def bare(
    model: Path,
    batch: NDArray[Any],
    images: int,
    device: str,
    *,
    spinning: bool,
    threads: int,
    bound: bool = False,
) -> Callable[[], None]:
    """Runs a session on one ready batch until it has seen `images` images; with sessions of one
    thread, as many threads as there are cores call it. `bound`: the batch is on the CUDA device
    already."""
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
    inputs = [batch.copy() for _ in range(CORES if threads == 1 else 1)]
    binding = session.io_binding()
    if bound:
        binding.bind_ortvalue_input(image.name, ort.OrtValue.ortvalue_from_numpy(inputs[0], "cuda"))
        binding.bind_output(output.name, "cuda")

    def work(turns: Iterator[int], array: Any) -> None:
        while next(turns, None) is not None:  # a list's iterator may be shared by threads
            if bound:
                session.run_with_iobinding(binding)
            else:
                session.run([output.name], {image.name: array})

    def run() -> None:
        turns = iter([*range(images // len(batch))])
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


if __name__ == "__main__":
    main()
