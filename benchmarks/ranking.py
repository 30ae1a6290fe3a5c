"""Ranking and re-ranking against the bare matrix product of the same size in the same run.

    python benchmarks/ranking.py                   # Market scale, about a minute
    python benchmarks/ranking.py --scale msmt17    # 2.5 GiB, several minutes
    python benchmarks/ranking.py --case dense      # the published dense procedure, 12,000 vectors
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dense_rerank import dense_rerank
from torch.nn import functional

from reidkit.retrieval import Embeddings, RerankConfig, evaluate, forecast, make_plan, top_n
from reidkit.retrieval.distance import Vectors, block_rows, blocks
from reidkit.retrieval.products import convolve, fastest_product, multiply
from reidkit.retrieval.rerank import reranked_rows

MIB = 2**20
SCALES = {
    # queries, gallery, identities, cameras, distractors
    "small": (500, 3_000, 120, 6, 0),
    "market": (3_368, 19_732, 750, 6, 6_617),
    "dense": (1_750, 10_250, 390, 6, 3_437),
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

    def __init__(self, query: Embeddings, gallery: Embeddings, tile: int) -> None:
        self.query = torch.from_numpy(query.features)
        self.gallery = torch.from_numpy(gallery.features)
        self.all = Vectors([query, gallery], metric="cosine")
        tiles = blocks(len(self.all), tile)
        self.tiles = [(own, own) for own in tiles]
        self.tiles += [(own, other) for i, own in enumerate(tiles) for other in tiles[i + 1 :]]
        # filled now: its memory is not the case's
        self.buffer = torch.zeros(max(block_rows(len(gallery)) * len(gallery), tile**2))
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
    # not getrusage: its maximum includes the parent's memory at the time of the fork
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run_case(case: str, scale: str, dim: int, budget: int | None) -> dict[str, Any]:
    """Measures one case in this process."""
    warm = draw("small", 64)
    evaluate(*warm, rerank=RerankConfig())
    query, gallery = draw(scale, dim)
    tile = make_plan(len(query), len(gallery), dim, rerank=RerankConfig(), max_memory=budget).tile
    bare = Bare(query, gallery, tile)
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

    config = RerankConfig() if case == "rerank" else None
    ahead = forecast(len(query), len(gallery), dim, rerank=config, max_memory=budget)
    before = resident()
    score = float("nan")
    work.start()
    if case == "top100":
        top_n(query, gallery, 100, max_memory=budget, on_progress=follow)
    else:
        score = evaluate(
            query,
            gallery,
            metric="euclidean" if case == "euclidean" else "cosine",
            rerank=config,
            max_memory=budget,
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
        "forecast": f"{ahead.seconds:.1f} s, {ahead.memory / MIB:.0f} MiB",
        "stages": {
            name: round(b - a, 2) for name, a, b in zip(stages, ends, ends[1:], strict=False)
        },
    }


def run_dense(dim: int) -> None:
    """Our re-ranking against the dense procedure, in seconds and in the last digit."""
    query, gallery = draw("dense", dim)
    config = RerankConfig()
    fast, slow = Clock(), Clock()
    fast.start()
    rows = reranked_rows(query, [gallery], config=config)
    ours = np.concatenate([rows.block(a, b).numpy().copy() for a, b in blocks(len(query), 512)])
    fast.stop()
    both = np.concatenate([query.features, gallery.features])
    slow.start()
    dense = dense_rerank(both, len(query), k1=config.k1, k2=config.k2, lam=config.lam)
    slow.stop()
    print(f"re-ranking {len(both)} vectors, seconds (processor time):")
    print(f"dense {slow.seconds:.1f} ({slow.cpu:.1f}), here {fast.seconds:.1f} ({fast.cpu:.1f})")
    print(f"ratio 1/{slow.seconds / fast.seconds:.1f} (1/{slow.cpu / fast.cpu:.1f})")
    print(f"largest difference {np.abs(ours - dense).max():.1e}")


def run_kernels(dim: int) -> None:
    """Speed and error of the float32 products PyTorch offers on this CPU."""
    torch.manual_seed(0)
    rows = functional.normalize(torch.randn(1024, dim))
    columns = functional.normalize(torch.randn(16_384, dim))
    exact = rows[:64].double() @ columns.double().T
    out = torch.empty(len(rows), len(columns))
    packed_rows, packed_columns = rows.to_mkldnn(), columns.to_mkldnn()

    def packed() -> None:
        out.copy_(functional.linear(packed_rows, packed_columns).to_dense())

    def allowing(precision: str) -> Callable[[], None]:
        def run() -> None:
            torch.set_float32_matmul_precision(precision)
            torch.mm(rows, columns.T, out=out)
            torch.set_float32_matmul_precision("highest")

        return run

    ways: dict[str, Callable[[], object]] = {
        "torch.mm (MKL on x86)": lambda: multiply(rows, columns, out),
        "1x1 convolution (oneDNN)": lambda: convolve(rows, columns, out),
        "linear on mkldnn tensors (oneDNN)": packed,
        "NumPy (OpenBLAS)": lambda: np.matmul(rows.numpy(), columns.numpy().T, out=out.numpy()),
        'torch.mm, precision "high"': allowing("high"),
        'torch.mm, precision "medium"': allowing("medium"),
    }
    print("| product | GFLOP/s | largest error on unit vectors |")
    print("|---|---|---|")
    for name, run in ways.items():
        best = float("inf")
        for _ in range(4):
            began = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - began)
        error = (out[:64] - exact).abs().max().item()
        speed = 2 * len(rows) * len(columns) * dim / best / 1e9
        print(f"| {name} | {speed:.0f} | {error:.1e} |")
    chosen = fastest_product(dim, torch.get_num_threads())
    print(f"chosen on this machine: {chosen.__name__}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", choices=("small", "market", "msmt17"), default="market")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--case", choices=(*CASES, "dense", "kernels"), action="append")
    parser.add_argument("--max-memory", type=int, metavar="MIB")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    budget = options.max_memory and options.max_memory * MIB
    if options.child:
        print(json.dumps(run_case(options.child, options.scale, options.dim, budget)))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dim}-d float32")
    cases = options.case or list(CASES)
    for case, run in (("dense", run_dense), ("kernels", run_kernels)):
        if case in cases:
            run(options.dim)
            cases.remove(case)
    if not cases:
        return
    seconds = ("seconds", "product", "ratio", "cpu_ratio")
    sizes = ("above", "features", "total")
    head = ["case", "scale", *seconds, *(f"{s} MiB" for s in sizes), "mAP", "forecast"]
    print(f"| {' | '.join(head)} |")
    print("|---" * len(head) + "|")
    for case in cases:
        command = [sys.executable, __file__, "--child", case, "--scale", options.scale]
        command += ["--dim", str(options.dim)]
        command += ["--max-memory", str(options.max_memory)] if budget else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout)
        cells = [f"{row[c]:.2f}" for c in seconds] + [f"{row[c]:.0f}" for c in sizes]
        cells += [f"{100 * row['mAP']:.1f}", row["forecast"]]
        print(f"| {case} | {options.scale} | {' | '.join(cells)} |")
        if len(row["stages"]) > 1:
            print(f"  stages, seconds: {row['stages']}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
