"""torch.compile of an embedding network beside the network as it is:

    python benchmarks/compilation.py CHECKPOINT [--device cuda] [--batches 16 5 1 16]

Each line is a batch size, or a number of clips, in order: seconds of the first compiled call, which
include compiling it; speed relative to the network as it is, a median of pairs (processor time on
the CPU, wall-clock time on CUDA); the lowest cosine between the embeddings of the two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from reidkit.runtime.embedder import Embedder, load_embedder
from reidkit.runtime.execution import Execution

PAIRS = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 5, 1, 16])
    options = parser.parse_args()
    plain, compiled = (
        load_embedder(options.checkpoint, device=options.device, execution=Execution(compile=flag))
        for flag in (False, True)
    )
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    clip = (plain.frames,) if plain.frames else ()
    print(f"{compiled.name}: batch, seconds of the first call, relative speed, lowest cosine")
    for batch in options.batches:
        shape = (batch, *clip, *plain.preprocess.size, 3)
        pixels = np.random.default_rng(batch).integers(0, 256, shape, np.uint8)
        started = time.perf_counter()
        found = compiled.embed(pixels)
        first = time.perf_counter() - started
        expected = plain.embed(pixels)

        def seconds(embedder: Embedder, pixels: np.ndarray = pixels) -> float:
            started = clock()
            embedder.embed(pixels)
            return clock() - started

        ratio = statistics.median(seconds(plain) / seconds(compiled) for _ in range(PAIRS))
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = ((found * expected).sum(1) / norms).min()
        print(f"  {batch:5} {first:8.1f} s {ratio:8.2f} x {cosine:9.5f}", flush=True)


if __name__ == "__main__":
    main()
