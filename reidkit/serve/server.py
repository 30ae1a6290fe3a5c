"""The process that serves: its socket, its signals, its end."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import uvicorn
from starlette.datastructures import MutableHeaders

from reidkit.errors import ConfigError
from reidkit.files import os_error_text

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
"""Open connections; further ones are answered 503 at once."""


def serve_app(app: ASGIApp, *, host: str, port: int, timeout: float) -> None:
    """Serves until SIGINT or SIGTERM; requests under way are finished first.

    Args:
        port: 0: a free one; the log names it.
        timeout: seconds that requests under way may still take.
    Raises:
        ConfigError: if the address cannot be used.
    """
    with _listen(host, port) as listener, _exit_quietly():
        address, number = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        log.info("listening on http://%s:%d; stop with Ctrl+C", shown, number)
        config = uvicorn.Config(
            CloseConnections(app, when=lambda: server.should_exit),
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=math.ceil(timeout),
            server_header=False,
        )
        server = uvicorn.Server(config)
        server.run(sockets=[listener])


class CloseConnections:
    """Ends connections after their answers, and says so in these, once the server is to stop.

    uvicorn ends them too, but not all of its HTTP parsers tell the clients, which then send their
    next requests over connections that are reset.
    """

    def __init__(self, app: ASGIApp, *, when: Callable[[], bool]) -> None:
        self.app = app
        self.when = when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self.when():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self.app(scope, receive, send_closing)


def _listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Its protocol is named, since asyncio switches Nagle's algorithm off only for sockets that name
    it; else every answer waits 40 ms for the client's delayed acknowledgement.
    """
    name = host.strip("[]")
    try:
        family, *_, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if sys.platform != "win32":  # there it would let another process take the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(MAX_CONNECTIONS)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {os_error_text(error)}. "
            "Choose another --host or --port (0: a free one)"
        ) from error
    return listener


@contextlib.contextmanager
def _exit_quietly() -> Iterator[None]:
    """SIGINT and SIGTERM end the process with status 0 after uvicorn's own shutdown, which raises
    them again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(0)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
