"""Who may come in: the Host header, the web page that asks, the API key. Compares keys in constant time."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edge.server.access import send_fault
from edge.server.errors import Fault
from edge.server.options import ServerOptions

PUBLIC = ("/health", "/v1/health")  # what a supervisor asks, which has no key


class Door:
    """ASGI middleware: lets a request through, or answers 401 or 403."""

    def __init__(self, app: ASGIApp, *, options: ServerOptions) -> None:
        self._app = app
        self._hosts = options.allowed_hosts
        self._origins = options.cors_origins
        self._digests = [_digest(key.encode()) for key in options.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(scope) if scope["type"] == "http" else None
        if fault is not None:
            await send_fault(fault, send)
            return
        await self._app(scope, receive, send)

    def _fault(self, scope: Scope) -> Fault | None:
        headers = Headers(scope=scope)
        host = _host_name(headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            return Fault(403, "this server does not answer to that Host header", code="host_not_allowed")
        if self._digests:
            return None if scope["path"] in PUBLIC or self._has_key(headers) else _NO_KEY
        if not self._page_may_ask(headers.get("origin"), host):
            return Fault(403, "web pages of that origin may not ask this server", code="origin_not_allowed")
        return None

    def _page_may_ask(self, origin: str | None, host: str) -> bool:
        # A browser sends a page's POST to 127.0.0.1 before it asks whether the page may read the answer.
        if origin is None or "*" in self._origins or origin in self._origins:
            return True
        return _is_loopback(host) and _is_loopback(_origin_name(origin))

    def _has_key(self, headers: Headers) -> bool:
        given = headers.get("authorization", "")
        scheme, _, key = given.partition(" ")
        digest = _digest(key.strip().encode("latin-1") if scheme.lower() == "bearer" else b"")
        matches = [hmac.compare_digest(digest, known) for known in self._digests]  # all, whichever is right
        return any(matches)


_NO_KEY = Fault(
    401,
    "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'",
    code="invalid_api_key",
    headers={"WWW-Authenticate": "Bearer"},
)


def _digest(key: bytes) -> bytes:
    """Of one length, so that comparing takes one time whatever the key's length."""
    return hashlib.sha256(key).digest()


def _host_name(host: str) -> str:
    """The name without the port, without an IPv6 address' brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _origin_name(origin: str) -> str:
    try:
        return (urlsplit(origin).hostname or "").lower()
    except ValueError:
        return ""


def is_loopback_host(host: str) -> bool:
    """Whether binding to `host` is reachable from this machine alone."""
    return _is_loopback(host.strip("[]"))


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def local_hosts(host: str, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The Host headers that a server on a loopback address answers to."""
    return ("localhost", "127.0.0.1", "::1", host.strip("[]").lower(), *extra)
