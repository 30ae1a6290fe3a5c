"""The server: its paths, what each answers, and its errors."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import reidkit
from reidkit.errors import ReidkitError
from reidkit.serve import protocol
from reidkit.serve.batching import QueueFull
from reidkit.serve.guard import Guard
from reidkit.serve.metrics import MeasureRequests, Metrics
from reidkit.serve.search import IndexSearch, SearchFailed, SearchQuery, check_names
from reidkit.serve.service import EmbeddingService, ServeSettings
from reidkit.serve.uploads import RAW, read_images, too_many_images

if TYPE_CHECKING:
    from reidkit.index.records import Hit
    from reidkit.runtime.embedder import Embedder

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

MODELS = "/v2/models"
"""Where the protocol has its models."""


def create_app(
    embedder: Embedder, settings: ServeSettings, *, index: IndexSearch | None = None
) -> Starlette:
    """The ASGI application that serves `embedder`, and searches in `index`."""
    metrics = Metrics()
    service = EmbeddingService(embedder, settings, metrics)
    answers = Answers(service, settings, metrics, index)
    limited = functools.partial(_within, settings.timeout)
    routes = [
        Route("/v2", answers.server),
        Route("/v2/health/live", answers.live),
        Route("/v2/health/ready", answers.ready),
        Route("/embed", limited(answers.embed), methods=["POST"]),
        Route("/search", limited(answers.search), methods=["POST"]),
        Route("/metrics", answers.metrics),
    ]
    model = f"{MODELS}/{settings.name}"
    for path in (model, f"{model}/versions/{protocol.VERSION}"):
        routes += [
            Route(path, answers.model),
            Route(f"{path}/ready", answers.model_ready),
            Route(f"{path}/infer", limited(answers.infer), methods=["POST"]),
        ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service.running():
            try:
                yield
            finally:
                if index is not None:
                    index.close()

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(MeasureRequests, metrics=metrics, paths={route.path for route in routes}),
            Middleware(Guard, token=settings.token, max_body=settings.max_body),
        ],
        exception_handlers={
            404: functools.partial(_not_found, settings.name),
            HTTPException: _http_error,
            ReidkitError: _user_error,
            QueueFull: _queue_full,
            SearchFailed: _search_failed,
            TimeoutError: functools.partial(_timed_out, settings.timeout),
            ClientDisconnect: _disconnected,
            Exception: _internal_error,
        },
    )


class Answers:
    """What each path answers."""

    def __init__(
        self,
        service: EmbeddingService,
        settings: ServeSettings,
        metrics: Metrics,
        index: IndexSearch | None,
    ) -> None:
        self._service = service
        self._settings = settings
        self._metrics = metrics
        self._index = index

    async def server(self, request: Request) -> Response:
        extensions = ["binary_tensor_data"]
        return JSONResponse(
            {"name": "reidkit", "version": reidkit.__version__, "extensions": extensions}
        )

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._service.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        service = self._service
        return JSONResponse(
            protocol.model_metadata(self._settings.name, service.shape, service.dimension)
        )

    async def model_ready(self, request: Request) -> Response:
        ready = self._service.ready
        return JSONResponse({"name": self._settings.name, "ready": ready}, 200 if ready else 503)

    async def infer(self, request: Request) -> Response:
        body = await request.body()
        length = request.headers.get(protocol.HEADER_LENGTH)
        wanted = await asyncio.to_thread(protocol.parse_request, body, length, self._service.shape)
        if len(wanted.pixels) > self._settings.max_images:
            raise too_many_images(self._settings.max_images)
        rows = await self._service.embed_pixels(wanted.pixels)
        answer, header = protocol.format_response(
            rows, model=self._settings.name, id=wanted.id, binary=wanted.binary
        )
        if header is None:
            return Response(answer, media_type="application/json")
        return Response(answer, media_type=RAW, headers={protocol.HEADER_LENGTH: str(header)})

    async def embed(self, request: Request) -> Response:
        check_names(request.query_params, ())
        images = await read_images(request, self._settings.max_images)
        rows = await self._service.embed_images(images)
        if RAW in request.headers.get("accept", ""):
            shape = ",".join(map(str, rows.shape))
            return Response(
                rows.astype("<f4").tobytes(), media_type=RAW, headers={"X-Shape": shape}
            )
        return JSONResponse({"model": self._settings.name, "embeddings": rows.tolist()})

    async def search(self, request: Request) -> Response:
        index = self._index
        if index is None:
            advice = "Start it with one: reidkit serve --index DIR"
            raise HTTPException(404, f"this server has no index. {advice}")
        query = SearchQuery.parse(request.query_params)
        images = await read_images(request, self._settings.max_images)
        rows = await self._service.embed_images(images, flip=index.flip)
        lists = await index.search(rows, query, on_search=self._metrics.search.observe)
        return await asyncio.to_thread(_hits_response, self._settings.name, lists)

    async def metrics(self, request: Request) -> Response:
        content = generate_latest(self._metrics.registry)
        return Response(content, media_type=CONTENT_TYPE_LATEST)


def _within(seconds: float, handler: Handler) -> Handler:
    """The handler with a time limit; exceeding it raises TimeoutError."""

    async def limited(request: Request) -> Response:
        async with asyncio.timeout(seconds):
            return await handler(request)

    return limited


def _hits_response(model: str, lists: Sequence[Sequence[Hit]]) -> JSONResponse:
    queries = [{"hits": [hit.to_dict() for hit in hits]} for hits in lists]
    return JSONResponse({"model": model, "queries": queries})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _not_found(model: str, request: Request, error: Exception) -> Response:
    path = request.scope["path"]
    if not path.startswith(MODELS):
        return await _http_error(request, error)
    text = (
        f"found {path[:80]}, expected a path of this server's model: {MODELS}/{model} or "
        f"{MODELS}/{model}/versions/{protocol.VERSION}, each also with /ready or /infer"
    )
    return JSONResponse({"error": text}, 404)


async def _user_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _queue_full(request: Request, error: Exception) -> Response:
    text = "too many requests are waiting; try again"
    return JSONResponse({"error": text}, 503, {"Retry-After": "1"})


async def _search_failed(request: Request, error: Exception) -> Response:
    text = "the index cannot be searched now; see the server's log"
    return JSONResponse({"error": text}, 503)


async def _timed_out(seconds: float, request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"no answer within {seconds:g} seconds; try again"}, 503)


async def _disconnected(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the client ended the connection"}, 400)  # for the metrics


async def _internal_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal error; see the server's log"}, 500)
