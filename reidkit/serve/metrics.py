"""Prometheus metrics of the server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CROPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("path", "status")
        self.requests = Counter(
            "reidkit_requests", "Requests answered.", labels, registry=self.registry
        )
        self.seconds = Histogram(
            "reidkit_request_seconds",
            "Time from the request's headers to the end of the answer.",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "reidkit_batch_crops",
            "Crops embedded in one batch.",
            buckets=CROPS,
            registry=self.registry,
        )
        self.embedding = Histogram(
            "reidkit_embedding_seconds",
            "Time of the network for one batch.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.search = Histogram(
            "reidkit_search_seconds",
            "Time of the index for one request.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.queue = Gauge(
            "reidkit_queue_crops", "Crops that wait for the network.", registry=self.registry
        )


class MeasureRequests:
    """Counts requests and measures their time. Unknown paths are counted as one, so that a client
    cannot create metrics without end."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: set[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self.paths else "other"
        status = 500
        start = time.perf_counter()

        async def remember_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, remember_status)
        finally:
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - start)
