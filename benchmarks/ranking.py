"""Ranking and re-ranking, compared with the matrix products alone in the same run.

    python benchmarks/ranking.py                   # the size of Market-1501, about a minute
    python benchmarks/ranking.py --scale msmt17    # 2.5 GiB, several minutes
    python benchmarks/ranking.py --case dense      # the published dense procedure, 12,000 vectors

Every case runs in its own process. "above" is its peak memory minus what libraries and features
take before it starts, "total" the peak of the whole process. The matrix product of every block or
tile is repeated and timed right after the case has computed it, so that other load on the machine
affects both alike.

Synthetic features are rectified linear maps of a latent code (identity plus noise), 2048-d, not
normalised: cosines are distributed like those of a trained network, and mAP is neither 0 nor 1.
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
from dense_rerank import dense_rerank

from reidkit.retrieval import Embeddings, RankingConfig, RerankConfig, compute_metrics, top_n
from reidkit.retrieval.blocks import block_rows, chunks, plan_blocks
from reidkit.retrieval.distance import Vectors
from reidkit.retrieval.rerank import rerank_distances

MIB = 2**20
SCALES = {
    # queries, gallery, identities, cameras, distractors
    "small": (500, 3_000, 120, 6, 0),
    "market": (3_368, 19_732, 750, 6, 6_617),
    "dense": (1_750, 10_250, 390, 6, 3_437),
    "msmt17": (11_659, 82_161, 3_060, 15, 0),
}
CASES = ("evaluate", "euclidean", "top100", "rerank")


def synthetic_features(scale: str, dim: int) -> tuple[Embeddings, Embeddings]:
    """Query and gallery, filled in place, so that they cause no memory peak before the case."""
    Q, G, ids, cams, distractors = SCALES[scale]
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(ids + 1, 64)).astype(np.float32)
    mix = rng.normal(size=(64, dim)).astype(np.float32)

    def embeddings(n: int, others: int) -> Embeddings:
        pids = rng.integers(1, ids + 1, n)
        pids[:others] = 0
        features = np.empty((n, dim), dtype=np.float32)
        for start, stop in chunks(n, 1024):
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
    """Sums wall-clock and processor seconds between start and stop."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


class Products:
    """The matrix products of a case alone."""

    def __init__(self, query: Embeddings, gallery: Embeddings, tile: int) -> None:
        self.query = torch.from_numpy(query.features)
        self.gallery = torch.from_numpy(gallery.features)
        self.all = Vectors([query, gallery], metric="cosine")
        tiles = chunks(len(self.all), tile)
        self.tiles = [(own, own) for own in tiles]
        self.tiles += [(own, other) for i, own in enumerate(tiles) for other in tiles[i + 1 :]]
        # filled in advance, so that its memory does not count for the case
        self.buffer = torch.zeros(max(block_rows(len(gallery)) * len(gallery), tile**2))
        self.done = 0

    def rows(self, stop: int) -> None:
        """The next queries up to `stop` against the whole gallery."""
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
    # not getrusage: its maximum includes the memory of the parent at the fork
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run_case(case: str, scale: str, dim: int, budget: int | None) -> dict[str, Any]:
    """Measures one case in this process."""
    warm = synthetic_features("small", 64)
    compute_metrics(*warm, RankingConfig(rerank=RerankConfig()))
    query, gallery = synthetic_features(scale, dim)
    plan = plan_blocks(len(query), len(gallery), dim, rerank=RerankConfig(), max_memory=budget)
    products = Products(query, gallery, plan.tile)
    work, floor = Clock(), Clock()
    stages: dict[str, float] = {}

    def repeat_product(stage: str, done: int, total: int) -> None:
        work.stop()
        stages[stage] = work.seconds
        floor.start()
        if stage == "neighbours":
            products.tile(done - 1)
        elif stage in ("ranking", "searching"):
            products.rows(done)
        floor.stop()
        work.start()

    config = RankingConfig(
        protocol="none" if case == "top100" else "market",
        metric="euclidean" if case == "euclidean" else "cosine",
        rerank=RerankConfig() if case == "rerank" else None,
        max_memory=budget,
    )
    before = resident()
    score = float("nan")
    work.start()
    if case == "top100":
        top_n(query, gallery, 100, config, on_progress=repeat_product)
    else:
        score = compute_metrics(query, gallery, config, on_progress=repeat_product).mAP
    work.stop()
    ends = [0.0, *stages.values()]
    return {
        "seconds": work.seconds,
        "product": floor.seconds,
        "ratio": work.seconds / floor.seconds,
        "cpu_ratio": work.cpu / floor.cpu,
        "above": peak() - before,
        "features": (query.features.nbytes + gallery.features.nbytes) / MIB,
        "total": peak() - products.buffer.nbytes / MIB,
        "mAP": score,
        "stages": {
            name: round(b - a, 2) for name, a, b in zip(stages, ends, ends[1:], strict=False)
        },
    }


def run_dense(dim: int) -> None:
    """Compares re-ranking with the dense procedure: seconds and largest difference."""
    query, gallery = synthetic_features("dense", dim)
    config = RerankConfig()
    fast, slow = Clock(), Clock()
    fast.start()
    distances = rerank_distances(query, [gallery], config=config)
    blocks = chunks(len(query), 512)
    sparse = np.concatenate([distances.block(a, b).numpy().copy() for a, b in blocks])
    fast.stop()
    both = np.concatenate([query.features, gallery.features])
    slow.start()
    dense = dense_rerank(both, len(query), k1=config.k1, k2=config.k2, lam=config.lam)
    slow.stop()
    print(f"re-ranking {len(both)} vectors, seconds (processor time):")
    print(f"dense {slow.seconds:.1f} ({slow.cpu:.1f}), reidkit {fast.seconds:.1f} ({fast.cpu:.1f})")
    print(f"ratio 1/{slow.seconds / fast.seconds:.1f} (1/{slow.cpu / fast.cpu:.1f})")
    print(f"largest difference {np.abs(sparse - dense).max():.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", choices=("small", "market", "msmt17"), default="market")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--case", choices=(*CASES, "dense"), action="append")
    parser.add_argument("--max-memory", type=int, metavar="MIB")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    budget = options.max_memory and options.max_memory * MIB
    if options.child:
        print(json.dumps(run_case(options.child, options.scale, options.dim, budget)))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dim}-d float32")
    cases = options.case or list(CASES)
    if "dense" in cases:
        run_dense(options.dim)
        cases.remove("dense")
    if not cases:
        return
    seconds = ("seconds", "product", "ratio", "cpu_ratio")
    sizes = ("above", "features", "total")
    head = ["case", "scale", *seconds, *(f"{s} MiB" for s in sizes), "mAP"]
    print(f"| {' | '.join(head)} |")
    print("|---" * len(head) + "|")
    for case in cases:
        command = [sys.executable, __file__, "--child", case, "--scale", options.scale]
        command += ["--dim", str(options.dim)]
        command += ["--max-memory", str(options.max_memory)] if budget else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout)
        cells = [f"{row[c]:.2f}" for c in seconds] + [f"{row[c]:.0f}" for c in sizes]
        cells.append(f"{100 * row['mAP']:.1f}")
        print(f"| {case} | {options.scale} | {' | '.join(cells)} |")
        if len(row["stages"]) > 1:
            print(f"  stages, seconds: {row['stages']}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
