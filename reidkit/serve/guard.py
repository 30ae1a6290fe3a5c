"""Who may ask, and how much they may send."""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIN_TOKEN = 16
"""Characters of a token; shorter ones can be guessed."""
OPEN_PATHS = {"/v2/health/live", "/v2/health/ready"}
"""Answered without a token, for the probes of an orchestrator."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_access(host: str, token: str) -> None:
    """Refuses to serve other machines without a token.

    Raises:
        ConfigError: if there is none, or it is too short or not ASCII.
    """
    if not token and not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines, so clients need a token. Set one: "
            "export REIDKIT_TOKEN=$(openssl rand -hex 32)"
        )
    if token and (len(token) < MIN_TOKEN or not token.isascii()):
        raise ConfigError(
            f"the token has {len(token)} characters, expected at least {MIN_TOKEN}, all ASCII. "
            "Set one: export REIDKIT_TOKEN=$(openssl rand -hex 32)"
        )


class Guard:
    """Refuses requests without the token, from a web page, or with too large a body.

    Without a token, the Host header must name this machine: a page in a browser on this machine
    could otherwise reach the server under a name of its own (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, token: str, max_body: int) -> None:
        self.app = app
        self.token = token.encode()
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body:
                raise HTTPException(413, self._too_large())
            return message

        await self.app(scope, receive_limited, send)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        if self.token:
            scheme, _, found = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(found.strip().encode("latin-1"), self.token)
            if path not in OPEN_PATHS and not (same and scheme.lower() == "bearer"):
                text = "missing or wrong token; expected the header Authorization: Bearer TOKEN"
                return _error(401, text, {"WWW-Authenticate": "Bearer"})
        elif not is_loopback(_host_name(headers.get("host", ""))):
            return _error(
                400, "the Host header does not name this machine; set a token to allow it"
            )
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > self.max_body):
            return _error(413, self._too_large(), {"Connection": "close"})
        return None

    def _too_large(self) -> str:
        return (
            f"the body is larger than {self.max_body:,} bytes. Send fewer or smaller images, or "
            "start the server with a larger --max-body"
        )


def _host_name(header: str) -> str:
    """ "localhost:8000" -> "localhost"; "[::1]:8000" -> "[::1]"."""
    return header[: header.find("]") + 1] if header.startswith("[") else header.partition(":")[0]


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)
