"""An embedder without a network, whose embeddings can be checked by hand."""

from __future__ import annotations

import io
import threading

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.preprocess import Preprocess


class MeanColour:
    """Embeds an image (or clip) as the mean of its three channels: [B, 3], not normalised."""

    name = "mean colour"
    source_hash = ""
    concurrency = 1

    def __init__(self, *, frames: int = 0, channels: str = "rgb") -> None:
        self.preprocess = Preprocess(size=(8, 4), channels=channels)  # type: ignore[arg-type]
        self.frames = frames
        self.calls = 0
        self.batches: list[int] = []
        self.release = threading.Event()  # embed waits for it
        self.release.set()

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        self.release.wait(10)
        self.batches.append(len(pixels))
        assert pixels.dtype == np.uint8 and pixels.shape[-3:] == (8, 4, 3)
        return pixels.reshape(len(pixels), -1, 3).mean(1).astype(np.float32)


def encoded(colour: tuple[int, int, int], *, size: int = 16, kind: str = "PNG") -> bytes:
    """An image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, kind)
    return file.getvalue()
