"""Decoded and resized images in batches, for evaluation and extraction. Imports no torch."""

# B batch, H W pixels of the network's input

from __future__ import annotations

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


def pixel_batches(
    batches: Iterable[Sequence[Path]], preprocess: Preprocess, *, threads: int = 4
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

    with ThreadPoolExecutor(threads) as pool:
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
