"""Ranking and re-ranking against the bare matrix product of the same size in the same run.

    python benchmarks/ranking.py                   # Market scale, about a minute
    python benchmarks/ranking.py --scale msmt17    # 2.5 GiB, several minutes
    python benchmarks/ranking.py --case dense      # the published dense procedure, 8,000 vectors
    python benchmarks/ranking.py --case kernels    # float32 products PyTorch offers on this CPU

Every case runs in a process of its own, so that its peak memory is its own. "MiB above" is the
peak of resident memory over what libraries and features take before the case starts; the product
is timed twice right after the case and the mean counts. On a busy machine trust the CPU ratio
(processor time of all threads) more than the ratio (of seconds on the clock).

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reidkit.retrieval import Embeddings, Report, RerankConfig, evaluate, top_n
from reidkit.retrieval.distance import blocks

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


def product(query: Embeddings, gallery: Embeddings) -> None:
    """The bare product [Q, D] x [D, G], blocks of 512 rows into one buffer."""
    q, g = torch.from_numpy(query.features), torch.from_numpy(gallery.features)
    out = torch.empty((512, len(g)))
    for start, stop in blocks(len(q), 512):
        torch.mm(q[start:stop], g.T, out=out[: stop - start])


def symmetric_product(query: Embeddings, gallery: Embeddings) -> None:
    """The upper half of all products among N = Q + G vectors, in tiles of 2048."""
    parts = [torch.from_numpy(query.features), torch.from_numpy(gallery.features)]
    tiles = [part[start:stop] for part in parts for start, stop in blocks(len(part), 2048)]
    out = torch.empty((2048, 2048))
    for i, rows in enumerate(tiles):
        for columns in tiles[i:]:
            torch.mm(rows, columns.T, out=out[: len(rows), : len(columns)])


def timed(function: Callable[[], object]) -> tuple[float, float, object]:
    """Seconds on the clock, seconds of processor time, and what the function returned."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - clock, time.process_time() - cpu, result


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
    before = resident()
    stages: dict[str, float] = {}

    def follow(stage: str, done: int, total: int) -> None:
        stages[stage] = time.perf_counter()

    def work() -> object:
        if case == "top100":
            return top_n(query, gallery, 100)
        return evaluate(
            query,
            gallery,
            metric="euclidean" if case == "euclidean" else "cosine",
            rerank=RerankConfig() if case == "rerank" else None,
            on_progress=follow,
        )

    def bare() -> None:
        product(query, gallery)
        if case == "rerank":
            symmetric_product(query, gallery)

    edge = time.perf_counter()
    seconds, cpu, found = timed(work)
    high = peak()
    spent = {}
    for name, end in stages.items():
        spent[name], edge = round(end - edge, 2), end
    # after the case, so that the product's own memory is not counted as the case's
    runs = [timed(bare)[:2] for _ in range(1 if scale == "msmt17" else 2)]
    floor, floor_cpu = (sum(run) / 2 for run in zip(*runs, strict=True))
    return {
        "seconds": seconds,
        "product": floor,
        "ratio": seconds / floor,
        "cpu_ratio": cpu / floor_cpu,
        "above": high - before,
        "features": (query.features.nbytes + gallery.features.nbytes) / MIB,
        "total": high,
        "mAP": found.mAP if isinstance(found, Report) else float("nan"),
        "stages": spent,
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
