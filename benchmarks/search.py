"""Search in a gallery: exact against the bare product and FAISS, an index of millions, recall.

    python benchmarks/search.py                       100,000 x 512 and 19,732 x 512
    python benchmarks/search.py --index DIR --size 2000000
    python benchmarks/search.py --index DIR --faiss --features demo/gallery.h5

Vectors are of people with about ten images each, or those of a features file with noise. Runs are
interleaved; ratios are of the fastest of each.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reidkit.features import read_features
from reidkit.index.approximate import build_approximation
from reidkit.index.directory import IndexDirectory
from reidkit.index.exact import search_exact
from reidkit.index.records import Header, Record
from reidkit.vectors import unit_rows

D = 512
STEP = 20_000
NOISE = 0.5
"""Standard deviation of the noise, in that of a feature's elements."""

Source = Callable[[int, int], Any]
"""source(count, seed): unit vectors, float32 [count, D]."""


def noisy(features: Path) -> Source:
    """Vectors of a features file, each chosen at random, with noise."""
    rows = unit_rows(read_features(features).features)

    def source(count: int, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        noise = NOISE * rows.std() * rng.standard_normal((count, rows.shape[1]), np.float32)
        return unit_rows(rows[rng.integers(0, len(rows), count)] + noise)

    return source


def people(count: int, seed: int) -> Any:
    """Unit vectors of people with about ten images each: noise about one centre per person."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count // 10 + 1, D), np.float32)
    noise = 0.5 * rng.standard_normal((count, D), np.float32)
    return unit_rows(centres.repeat(10, axis=0)[:count] + noise)


def fastest(functions: dict[str, Callable[[], object]], *, repeats: int = 5) -> dict[str, float]:
    """Seconds of the fastest of interleaved runs."""
    seconds = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def compare_exact(G: int, Q: int) -> None:
    gallery, queries = people(G, 0), people(Q, 1)
    functions: dict[str, Callable[[], object]] = {
        "bare product": lambda: [queries[k : k + 256] @ gallery.T for k in range(0, Q, 256)],
        "search_exact": lambda: search_exact(queries, lambda a, b: gallery[a:b], G, 10),
    }
    try:
        import faiss

        flat = faiss.IndexFlatIP(D)
        flat.add(gallery)
        functions["FAISS Flat"] = lambda: flat.search(queries, 10)
    except ImportError:
        pass
    seconds = fastest(functions)
    ours = seconds["search_exact"]
    for name, taken in seconds.items():
        print(
            f"{G:>9,} x {D}  {name:13} {1e3 * taken / Q:7.3f} ms a query, "
            f"search_exact takes {ours / taken:.2f} times as long"
        )


def build(path: Path, size: int, source: Source) -> None:
    """An index of `size` vectors."""
    index = IndexDirectory.create(path, Header("", "", "", False, source(1, 0).shape[1]))
    start = time.perf_counter()
    for first in range(0, size, STEP):
        count = min(STEP, size - first)
        records = [Record(f"{first + k}.jpg", camera=k % 8, time=float(k)) for k in range(count)]
        index.add(source(count, first), records)
    print(f"built {size:,} vectors in {time.perf_counter() - start:.0f} s")


def open_and_search(path: Path, source: Source) -> None:
    """Run in a process of its own, so that its memory means something."""
    start = time.perf_counter()
    index = IndexDirectory(path)
    length = len(index)
    opened = time.perf_counter() - start
    queries = source(64, 3)
    start = time.perf_counter()
    index.search(queries, 10)
    searched = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{length:,} vectors: opened in {opened:.3f} s, 64 queries in {searched:.1f} s "
        f"({1e3 * searched / 64:.0f} ms a query), peak memory of the process {peak:,.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--only-search", action="store_true")
    parser.add_argument("--faiss", action="store_true", help="recall and speed of IVF and HNSW")
    parser.add_argument("--features", type=Path, help="vectors to add noise to")
    options = parser.parse_args()
    source = noisy(options.features) if options.features else people
    if options.only_search:
        open_and_search(options.index, source)
        return
    if options.index is None:
        compare_exact(19_732, 1024)
        compare_exact(100_000, 1024)
        return
    shutil.rmtree(options.index, ignore_errors=True)
    build(options.index, options.size, source)
    command = [sys.executable, __file__, "--index", str(options.index), "--only-search"]
    command += ["--features", str(options.features)] if options.features else []
    subprocess.run(command, check=True)
    if options.faiss:
        index = IndexDirectory(options.index)
        queries = source(256, 3)
        for kind in ("ivf", "hnsw"):
            start = time.perf_counter()
            found = build_approximation(index, kind)
            built = time.perf_counter() - start
            from reidkit.index.approximate import ApproximateDirectory

            approximate = ApproximateDirectory(options.index)
            approximate.search(queries[:1], 10)  # loads the FAISS index
            seconds = fastest(
                {
                    "exact": lambda: index.search(queries, 10),
                    kind: lambda it=approximate: it.search(queries, 10),
                }
            )
            print(
                f"{kind}: built in {built:.0f} s, recall at 10 {found.recall:.3f} (effort "
                f"{found.effort}), {seconds['exact'] / seconds[kind]:.1f} times as fast as exact"
            )


if __name__ == "__main__":
    main()
