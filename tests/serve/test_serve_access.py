"""Who may reach the server."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette")

from reidkit.errors import ConfigError
from reidkit.serve.guard import check_access, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_addresses_need_no_token(host: str) -> None:
    assert is_loopback(host)
    check_access(host, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_any_other_address_needs_one(host: str) -> None:
    with pytest.raises(ConfigError, match="REIDKIT_TOKEN"):
        check_access(host, "")
    check_access(host, "0123456789abcdef")


@pytest.mark.parametrize("token", ["short", "é" * 20])
def test_tokens_that_can_be_guessed_or_not_be_sent_are_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="at least 16, all ASCII"):
        check_access("127.0.0.1", token)
