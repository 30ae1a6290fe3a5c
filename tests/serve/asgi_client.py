"""A client that calls an ASGI application in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx


class Client:
    """`get` and `post` of an application whose lifespan has begun."""

    def __init__(self, loop: asyncio.AbstractEventLoop, http: httpx.AsyncClient) -> None:
        self._loop = loop
        self._http = http

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._loop.run_until_complete(self._http.get(path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._loop.run_until_complete(self._http.post(path, **options))


@contextmanager
def started(app: Any) -> Iterator[Client]:
    """A client of `app`, between its startup and its shutdown."""
    loop = asyncio.new_event_loop()
    # errors of the program are answered by 500, as a real server does
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
    lifespan = app.router.lifespan_context(app)
    try:
        loop.run_until_complete(lifespan.__aenter__())
        yield Client(loop, http)
        loop.run_until_complete(http.aclose())
        loop.run_until_complete(lifespan.__aexit__(None, None, None))
    finally:
        loop.close()
