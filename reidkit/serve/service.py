"""From encoded images or pixels to embeddings, by the queue of one model."""

# n images of one request, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from reidkit.device import usable_cores
from reidkit.image import open_image, to_rgb
from reidkit.serve import protocol
from reidkit.serve.batching import Batcher, BatchLimits
from reidkit.serve.metrics import Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reidkit.runtime.embedder import Embedder

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""What Pillow may decode: formats of cameras and browsers, none that runs another program."""


@dataclass(frozen=True)
class ServeSettings:
    """Limits and access of a server.

    Attributes:
        name: of the model in paths and answers.
        token: that clients must send; "" on this machine only.
        max_body: bytes of a request.
        max_images: images of a request.
        max_pixels: of one image, before it is resized.
        timeout: seconds for a request, its body included.
        batches: how crops are collected.
    """

    name: str = "model"
    token: str = ""
    max_body: int = 32 * 2**20
    max_images: int = 256
    max_pixels: int = 16_000_000
    timeout: float = 30.0
    batches: BatchLimits = field(default_factory=BatchLimits)


class EmbeddingService:
    """An embedder with a queue: encoded images or pixels in, L2-normalised embeddings out."""

    def __init__(self, embedder: Embedder, settings: ServeSettings, metrics: Metrics) -> None:
        self.embedder = embedder
        self.settings = settings
        self.metrics = metrics
        self.ready = False
        self.dimension = 0
        self.shape = protocol.input_shape(embedder.preprocess.size, embedder.frames)
        self._decoding = ThreadPoolExecutor(min(4, usable_cores()), "decode")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Warms the network up and is ready until the end of the block."""
        self.batcher = Batcher(
            self._embed, self.settings.batches, on_batch=self.metrics.batch.observe
        )
        self.metrics.queue.set_function(lambda: self.batcher.waiting)
        loop = asyncio.get_running_loop()
        shape = [1, *(max(size, 1) for size in self.shape[1:])]
        first = await loop.run_in_executor(None, self._embed, np.zeros(shape, np.uint8))
        self.dimension = first.shape[1]
        self.batcher.start()
        self.ready = True
        try:
            yield
        finally:
            self.ready = False
            await self.batcher.stop()
            self._decoding.shutdown()

    async def embed_images(
        self, images: Sequence[bytes], *, flip: bool = False
    ) -> NDArray[np.float32]:
        """Encoded images -> float32 [n, D]; for a network that takes clips they are the frames of
        one: [1, D].

        Args:
            flip: add the embedding of the mirrored image.
        Raises:
            DataError: if one cannot be read.
            QueueFull: if there is no room in the queue.
        """
        loop = asyncio.get_running_loop()
        with self.batcher.preparing():
            decoded = [
                loop.run_in_executor(self._decoding, self._decode, data, f"image {number}")
                for number, data in enumerate(images, 1)
            ]
            pixels = np.stack(await asyncio.gather(*decoded))
        if self.embedder.frames:
            pixels = pixels[None]
        if not flip:
            return _normalised(await self.batcher.embed(pixels))
        rows = await self.batcher.embed(np.concatenate([pixels, pixels[..., ::-1, :]]))
        return _normalised(rows[: len(pixels)] + rows[len(pixels) :])

    async def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB [n, H, W, 3], or clips [n, T, H, W, 3] -> float32 [n, D].

        Raises:
            QueueFull: if there is no room in the queue.
        """
        if self.embedder.preprocess.channels == "bgr":
            pixels = pixels[..., ::-1]
        return _normalised(await self.batcher.embed(pixels))

    def _decode(self, data: bytes, name: str) -> NDArray[np.uint8]:
        with open_image(
            io.BytesIO(data),
            name=name,
            max_pixels=self.settings.max_pixels,
            formats=FORMATS,
            advice="Crop it to one person first, or start the server with a larger --max-pixels",
        ) as image:
            return self.embedder.preprocess.pixels(to_rgb(image))

    def _embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        start = time.perf_counter()
        rows = self.embedder.embed(pixels)
        self.metrics.embedding.observe(time.perf_counter() - start)
        return rows


def _normalised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    normalised: NDArray[np.float32] = rows / np.maximum(norms, np.float32(1e-12))
    return normalised
