"""The server: its paths, and the way from a request to embeddings."""

# n images of one request, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import reidkit
from reidkit.errors import ReidkitError
from reidkit.image import open_image, to_rgb
from reidkit.serve import protocol
from reidkit.serve.batching import Batcher, BatchLimits, QueueFull
from reidkit.serve.guard import Guard
from reidkit.serve.metrics import MeasureRequests, Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reidkit.runtime.embedder import Embedder

log = logging.getLogger(__name__)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""What Pillow may decode: formats of cameras and browsers, none that runs another program."""
IMAGE_TYPES = {"image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream"}
RAW = "application/octet-stream"


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
        self._decoding = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "decode")

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

    async def embed_images(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Encoded images -> float32 [n, D]; for a network that takes clips they are the frames of
        one: [1, D].

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
        return await self.batcher.embed(pixels[None] if self.embedder.frames else pixels)

    async def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB [n, H, W, 3], or clips [n, T, H, W, 3] -> float32 [n, D].

        Raises:
            QueueFull: if there is no room in the queue.
        """
        if self.embedder.preprocess.channels == "bgr":
            pixels = pixels[..., ::-1]
        return await self.batcher.embed(pixels)

    def _decode(self, data: bytes, name: str) -> NDArray[np.uint8]:
        with open_image(
            io.BytesIO(data), name=name, max_pixels=self.settings.max_pixels, formats=FORMATS
        ) as image:
            return self.embedder.preprocess.pixels(to_rgb(image))

    def _embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        start = time.perf_counter()
        rows = self.embedder.embed(pixels)
        self.metrics.embedding.observe(time.perf_counter() - start)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        normalised: NDArray[np.float32] = rows / np.maximum(norms, np.float32(1e-12))
        return normalised


def create_app(embedder: Embedder, settings: ServeSettings) -> Starlette:
    """The ASGI application that serves `embedder`."""
    metrics = Metrics()
    service = EmbeddingService(embedder, settings, metrics)
    model = f"/v2/models/{settings.name}"

    async def server(request: Request) -> Response:
        extensions = ["binary_tensor_data"]
        return JSONResponse(
            {"name": "reidkit", "version": reidkit.__version__, "extensions": extensions}
        )

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    async def model_ready(request: Request) -> Response:
        return JSONResponse({"name": settings.name, "ready": service.ready})

    async def metadata(request: Request) -> Response:
        return JSONResponse(
            protocol.model_metadata(settings.name, service.shape, service.dimension)
        )

    async def infer(request: Request) -> Response:
        body = await request.body()
        length = request.headers.get(protocol.HEADER_LENGTH)
        wanted = await asyncio.to_thread(protocol.parse_request, body, length, service.shape)
        _check_count(len(wanted.pixels), settings.max_images)
        rows = await service.embed_pixels(wanted.pixels)
        answer, header = protocol.format_response(
            rows, model=settings.name, id=wanted.id, binary=wanted.binary
        )
        if header is None:
            return Response(answer, media_type="application/json")
        return Response(answer, media_type=RAW, headers={protocol.HEADER_LENGTH: str(header)})

    async def embed(request: Request) -> Response:
        rows = await service.embed_images(await _read_images(request, settings.max_images))
        if request.headers.get("accept", "") == RAW:
            shape = ",".join(map(str, rows.shape))
            return Response(
                rows.astype("<f4").tobytes(), media_type=RAW, headers={"X-Shape": shape}
            )
        return JSONResponse({"model": settings.name, "embeddings": rows.tolist()})

    async def show_metrics(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    limited = functools.partial(_within, settings.timeout)
    routes = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route(model, metadata),
        Route(f"{model}/ready", model_ready),
        Route(f"{model}/infer", limited(infer), methods=["POST"]),
        Route("/embed", limited(embed), methods=["POST"]),
        Route("/metrics", show_metrics),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(MeasureRequests, metrics=metrics, paths={route.path for route in routes}),
            Middleware(Guard, token=settings.token, max_body=settings.max_body),
        ],
        exception_handlers={
            HTTPException: _http_error,
            ReidkitError: _user_error,
            QueueFull: _queue_full,
            TimeoutError: functools.partial(_timed_out, settings.timeout),
            Exception: _internal_error,
        },
    )


def _within(seconds: float, handler: Handler) -> Handler:
    """The handler with a time limit; exceeding it raises TimeoutError."""

    async def limited(request: Request) -> Response:
        async with asyncio.timeout(seconds):
            return await handler(request)

    return limited


async def _read_images(request: Request, max_images: int) -> list[bytes]:
    """The encoded images of a request: its body, or the files of a multipart form.

    Raises:
        HTTPException: 400 or 415 if there is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=max_images, max_fields=0) as form:
            files = [item for _, item in form.multi_items() if isinstance(item, UploadFile)]
            images = [await file.read() for file in files]
    elif kind in IMAGE_TYPES:
        images = [await request.body()]
    else:
        expected = f"multipart/form-data or one of {', '.join(sorted(IMAGE_TYPES))}"
        raise HTTPException(415, f"found Content-Type {kind or 'none'}, expected {expected}")
    if not images or not all(images):
        raise HTTPException(400, "an image is empty" if images else "the form contains no file")
    return images


def _check_count(count: int, max_images: int) -> None:
    if count > max_images:
        raise HTTPException(413, f"found {count} images, the limit is {max_images} a request")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _user_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _queue_full(request: Request, error: Exception) -> Response:
    text = "too many requests are waiting; try again"
    return JSONResponse({"error": text}, 503, {"Retry-After": "1"})


async def _timed_out(seconds: float, request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"no answer within {seconds:g} seconds; try again"}, 503)


async def _internal_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal error; see the server's log"}, 500)
