"""Decoded and resized images in batches, for evaluation and extraction. Imports no torch."""

# B batch, H W pixels of the network's input

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reidkit.image import read_image
from reidkit.preprocess import Preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray


THREADS = min(16, max(4, os.cpu_count() or 1))
"""Threads that decode and resize, about 2,000 images per second each."""


def read_pixels(paths: Sequence[Path], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Decoded and resized images: uint8 [B, H, W, 3] for B paths. A path that is repeated is
    decoded once.

    Raises:
        DataError: at the first image that cannot be read.
    """
    found = {path: preprocess.pixels(read_image(path)) for path in dict.fromkeys(paths)}
    return np.stack([found[path] for path in paths])


def pixel_batches(
    batches: Iterable[Sequence[Path]], preprocess: Preprocess
) -> Iterator[NDArray[np.uint8]]:
    """Decoded and resized images: uint8 [B, H, W, 3] for each batch of B paths, in order. A path
    that is repeated within a batch is decoded once.

    Pillow releases the interpreter lock while it decodes and resizes, so threads suffice. At most
    three batches are in memory.

    Raises:
        DataError: at the first image that cannot be read.
    """

    def load(path: Path) -> NDArray[np.uint8]:
        return preprocess.pixels(read_image(path))

    with ThreadPoolExecutor(THREADS) as pool:
        in_flight: deque[list[Future[NDArray[np.uint8]]]] = deque()

        def oldest() -> NDArray[np.uint8]:
            return np.stack([f.result() for f in in_flight.popleft()])

        for batch in batches:
            futures = {path: pool.submit(load, path) for path in dict.fromkeys(batch)}
            in_flight.append([futures[path] for path in batch])
            if len(in_flight) > 2:
                yield oldest()
        while in_flight:
            yield oldest()
