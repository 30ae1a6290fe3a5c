"""One model on one backend, measured in a process of its own, so that its memory is its own.

The process reads commands and writes results, one JSON object a line. Times are in seconds.
"""

# B crops of a batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ReidkitError
from reidkit.runtime.crops import Runtime
from reidkit.runtime.image_files import embed_images

COMPARED = 8
"""Crops whose embeddings are compared between backends."""


class BenchWorker:
    """A loaded model and its measurements.

    Args:
        path: of the model.
        crops: JPEG files, at least as many as are measured at once.
        options: of `Runtime`.
    """

    def __init__(self, path: Path, crops: list[Path], options: dict[str, Any]) -> None:
        self.runtime = Runtime(path, **options)
        self.embedder = self.runtime.embedder
        self.crops = crops
        self.warm: set[int] = set()  # numbers of crops that have been embedded once
        embeddings = self.runtime.embed(crops[:COMPARED])
        self.reply = {
            "description": self.runtime.describe(),
            "precision": self.embedder.precision,
            "embeddings": embeddings.tolist(),
        }

    def latency(self, count: int, seconds: float) -> dict[str, list[float]]:
        """Times of embedding `count` crops, the network alone and from files on, in turn."""
        paths, pixels = self.crops[:count], self._pixels(count)
        times: dict[str, list[float]] = {"network": [], "total": []}
        if count not in self.warm:
            self.warm.add(count)
            self.runtime.embed(paths)
        end = time.perf_counter() + seconds
        while not times["total"] or time.perf_counter() < end:
            times["network"].append(_timed(lambda: self.embedder.embed(pixels)))
            times["total"].append(_timed(lambda: self.runtime.embed(paths)))
        return times

    def throughput(self, batch: int, seconds: float) -> dict[str, float]:
        """Crops per second of the network alone, with as many batches at once as it takes."""
        pixels, threads = self._pixels(batch), self.embedder.concurrency

        def repeat(_: int) -> int:
            done = 0
            while not done or time.perf_counter() < end:
                self.embedder.embed(pixels)
                done += batch
            return done

        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            list(pool.map(self.embedder.embed, [pixels] * threads))  # allocates what is reused
            first = time.perf_counter() - start
            if first > seconds:
                return {"rate": threads * batch / first}
            start = time.perf_counter()
            end = start + seconds
            count = sum(pool.map(repeat, range(threads)))
        return {"rate": count / (time.perf_counter() - start)}

    def extraction(self, count: int) -> dict[str, float]:
        """Crops per second of `count` files, from decoding to embeddings."""
        paths = [self.crops[n % len(self.crops)] for n in range(count)]
        return {"rate": count / _timed(lambda: embed_images(self.embedder, paths))}

    def memory(self) -> dict[str, int]:
        """Peak resident memory of this process in bytes."""
        return {"peak": peak_memory()}

    def _pixels(self, count: int) -> NDArray[np.uint8]:
        """Random uint8 [B, H, W, 3], or clips of the network's length [B, T, H, W, 3]."""
        clip = (self.embedder.frames,) if self.embedder.frames else ()
        shape = (count, *clip, *self.embedder.preprocess.size, 3)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def peak_memory() -> int:
    """Peak resident memory of this process in bytes.

    Linux counts it in /proc; getrusage would include the parent's memory before exec.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return 1024 * int(found[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    """Loads the model that the first line describes, then obeys the following ones."""
    with _own_stdout() as replies:

        def reply(document: object) -> None:
            replies.write(json.dumps(document) + "\n")
            replies.flush()

        setup = json.loads(sys.stdin.readline())
        crops = [Path(name) for name in setup["crops"]]
        try:
            worker = BenchWorker(Path(setup["path"]), crops, setup["options"])
        except ReidkitError as error:
            reply({"error": str(error)})
            return
        reply(worker.reply)
        for line in sys.stdin:
            command, *arguments = json.loads(line)
            try:
                reply(getattr(worker, command)(*arguments))
            except ReidkitError as error:
                reply({"error": str(error)})


def _own_stdout() -> TextIO:
    """Standard output for this module alone: what libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
