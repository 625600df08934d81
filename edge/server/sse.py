"""A response of server-sent events: pieces of an answer as they come, comments while nothing does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"
SILENCE = b": keep-alive\n\n"


def data(document: Mapping[str, object]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"


def comment(text: str) -> bytes:
    """A line that every client skips."""
    return f": {text}\n\n".encode()


class EventStream(Response):
    """Sends what `pieces` yields and calls `on_end` in every case.

    A client that stops reading, and keeps the connection open, is given up after write_timeout_s.
    """

    def __init__(
        self, pieces: AsyncIterator[bytes], *, on_end: Callable[[], None], write_timeout_s: float
    ) -> None:
        super().__init__(None)
        self._pieces, self._on_end, self._write_timeout_s = pieces, on_end, write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # nginx would hold the pieces back
        ]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for piece in self._pieces:
                await self._send(send, piece, more=True)
            await self._send(send, b"", more=False)
        finally:
            self._on_end()

    async def _send(self, send: Send, piece: bytes, *, more: bool) -> None:
        async with asyncio.timeout(self._write_timeout_s):
            await send({"type": "http.response.body", "body": piece, "more_body": more})
