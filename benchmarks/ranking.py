"""Ranking and re-ranking against the bare matrix product of the same size in the same run.

    python benchmarks/ranking.py                   # Market scale, about a minute
    python benchmarks/ranking.py --scale msmt17    # 2.5 GiB, several minutes
    python benchmarks/ranking.py --case dense      # the published dense procedure, 8,000 vectors
    python benchmarks/ranking.py --case kernels    # float32 products PyTorch offers on this CPU

Every case runs in a process of its own, so that its peak memory is its own. "above" is the peak
of resident memory over what libraries and features take before the case starts, "total" the peak
of all. Every block's or tile's bare product is repeated right after the case has made it, with
both clocks changed over, so that other work on the machine slows both alike.

Features are rectified linear images of a latent code (identity plus noise), 2048-d, not
normalised: cosines spread like those of a trained network and mAP is neither 0 nor 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reidkit.retrieval import Embeddings, RerankConfig, evaluate, top_n
from reidkit.retrieval.distance import Vectors, block_rows, blocks
from reidkit.retrieval.neighbours import TILE

MIB = 2**20
SCALES = {
    # queries, gallery, identities, cameras, distractors
    "small": (500, 3_000, 120, 6, 0),
    "market": (3_368, 19_732, 750, 6, 6_617),
    "msmt17": (11_659, 82_161, 3_060, 15, 0),
}
CASES = ("evaluate", "euclidean", "top100", "rerank")


def draw(scale: str, dim: int) -> tuple[Embeddings, Embeddings]:
    """Query and gallery features; both are filled in place, so that no peak precedes the case."""
    Q, G, ids, cams, distractors = SCALES[scale]
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(ids + 1, 64)).astype(np.float32)
    mix = rng.normal(size=(64, dim)).astype(np.float32)

    def embeddings(n: int, others: int) -> Embeddings:
        pids = rng.integers(1, ids + 1, n)
        pids[:others] = 0
        features = np.empty((n, dim), dtype=np.float32)
        for start, stop in blocks(n, 1024):
            noise = rng.normal(size=(stop - start, 64)).astype(np.float32)
            code = centres[pids[start:stop]] + noise
            code[pids[start:stop] == 0] *= 1.4
            np.maximum(code @ mix, 0, out=features[start:stop])
            features[start:stop, 0] += 1e-3
        return Embeddings(
            features, pids, rng.integers(0, cams, n), np.where(pids == 0, 2, 0).astype(np.uint8)
        )

    return embeddings(Q, 0), embeddings(G, distractors)


class Clock:
    """Sums seconds on the clock and of processor time between start and stop."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


class Bare:
    """The bare products a case stands on, each repeated right after the case made its own."""

    def __init__(self, query: Embeddings, gallery: Embeddings) -> None:
        self.query = torch.from_numpy(query.features)
        self.gallery = torch.from_numpy(gallery.features)
        self.all = Vectors([query, gallery], metric="cosine")
        tiles = blocks(len(self.all), TILE)
        self.tiles = [(tile, tile) for tile in tiles]
        self.tiles += [(tile, other) for i, tile in enumerate(tiles) for other in tiles[i + 1 :]]
        # filled now: its memory is not the case's
        self.buffer = torch.zeros(max(block_rows(len(gallery)) * len(gallery), TILE**2))
        self.done = 0

    def rows(self, stop: int) -> None:
        """Queries up to `stop` against the whole gallery."""
        rows = self.query[self.done : stop]
        out = self.buffer[: len(rows) * len(self.gallery)].view(len(rows), -1)
        torch.mm(rows, self.gallery.T, out=out)
        self.done = stop

    def tile(self, number: int) -> None:
        """One tile of the upper half of all products among N = Q + G vectors."""
        (top, bottom), (left, right) = self.tiles[number]
        out = self.buffer[: (bottom - top) * (right - left)].view(bottom - top, right - left)
        for a, low, high in self.all.runs(top, bottom):
            for b, first, last in self.all.runs(left, right):
                torch.mm(a, b.T, out=out[low - top : high - top, first - left : last - left])


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_case(case: str, scale: str, dim: int) -> dict[str, Any]:
    """Measures one case in this process."""
    warm = draw("small", 64)
    evaluate(*warm, rerank=RerankConfig())
    query, gallery = draw(scale, dim)
    bare = Bare(query, gallery)
    before = resident()
    work, floor = Clock(), Clock()
    stages: dict[str, float] = {}

    def follow(stage: str, done: int, total: int) -> None:
        work.stop()
        stages[stage] = work.seconds
        floor.start()
        if stage == "neighbours":
            bare.tile(done - 1)
        elif stage in ("ranking", "searching"):
            bare.rows(done)
        floor.stop()
        work.start()

    score = float("nan")
    work.start()
    if case == "top100":
        top_n(query, gallery, 100, on_progress=follow)
    else:
        score = evaluate(
            query,
            gallery,
            metric="euclidean" if case == "euclidean" else "cosine",
            rerank=RerankConfig() if case == "rerank" else None,
            on_progress=follow,
        ).mAP
    work.stop()
    ends = [0.0, *stages.values()]
    return {
        "seconds": work.seconds,
        "product": floor.seconds,
        "ratio": work.seconds / floor.seconds,
        "cpu_ratio": work.cpu / floor.cpu,
        "above": peak() - before,
        "features": (query.features.nbytes + gallery.features.nbytes) / MIB,
        "total": peak() - bare.buffer.nbytes / MIB,
        "mAP": score,
        "stages": {
            name: round(b - a, 2) for name, a, b in zip(stages, ends, ends[1:], strict=False)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", choices=SCALES, default="market")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_case(options.child, options.scale, options.dim)))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dim}-d float32")
    columns = ["seconds", "product", "ratio", "cpu_ratio", "above", "features", "total"]
    print(f"| case | scale | {' | '.join(columns)} | mAP |")
    print("|---" * (len(columns) + 3) + "|")
    for case in options.case or CASES:
        command = [sys.executable, __file__, "--child", case, "--scale", options.scale]
        command += ["--dim", str(options.dim)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout)
        cells = [f"{row[c]:.2f}" if i < 4 else f"{row[c]:.0f} MiB" for i, c in enumerate(columns)]
        print(f"| {case} | {options.scale} | {' | '.join(cells)} | {100 * row['mAP']:.1f} |")
        if len(row["stages"]) > 1:
            print(f"  stages, seconds: {row['stages']}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
