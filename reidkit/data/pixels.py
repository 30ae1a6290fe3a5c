"""Decoded and resized images in batches, for evaluation and extraction. Imports no torch, unless
it is asked for tensors."""

# B batch, H W pixels of the network's input

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from reidkit.choices import ImageBackend
from reidkit.device import usable_cores
from reidkit.errors import ConfigError, RuntimeMissing
from reidkit.image import read_image
from reidkit.preprocess import Preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor


THREADS = min(16, max(4, usable_cores()))
"""Threads that decode and resize, about 2,000 images per second each."""


def image_reader(backend: ImageBackend) -> Callable[[Path], Image.Image | Tensor]:
    """Reads a file for `Preprocess.pixels`, with the values and errors of `read_image`.

    Args:
        backend: "pillow" decodes and resizes as published numbers need it. "torchvision" is twice
            as fast: it decodes the same pixels, and resized ones differ by at most two grey levels,
            few of them at all.

    Raises:
        ConfigError: another backend.
        RuntimeMissing: torch or torchvision is not installed.
    """
    if backend not in get_args(ImageBackend):
        raise ConfigError(f"image_backend must be pillow or torchvision, got {backend!r}")
    if backend == "pillow":
        return read_image
    try:
        from reidkit.data.decode import read_tensor
    except ImportError as error:
        raise RuntimeMissing(
            f"the image backend torchvision cannot be imported: {error}. Run: pip install torch "
            "torchvision. Or leave it out, for Pillow"
        ) from error
    return read_tensor


def read_pixels(
    paths: Sequence[Path], preprocess: Preprocess, backend: ImageBackend = "pillow"
) -> NDArray[np.uint8]:
    """Decoded and resized images: uint8 [B, H, W, 3] for B paths. A path that is repeated is
    decoded once.

    Raises:
        DataError: at the first image that cannot be read.
    """
    read = image_reader(backend)
    found = {path: preprocess.pixels(read(path)) for path in dict.fromkeys(paths)}
    return np.stack([found[path] for path in paths])


def pixel_batches(
    batches: Iterable[Sequence[Path]], preprocess: Preprocess, backend: ImageBackend = "pillow"
) -> Iterator[NDArray[np.uint8]]:
    """Decoded and resized images: uint8 [B, H, W, 3] for each batch of B paths, in order. A path
    that is repeated within a batch is decoded once.

    Both backends release the interpreter lock while they decode and resize, so threads suffice. At
    most three batches are in memory.

    Raises:
        DataError: at the first image that cannot be read.
    """

    read = image_reader(backend)

    def load(path: Path) -> NDArray[np.uint8]:
        return preprocess.pixels(read(path))

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
