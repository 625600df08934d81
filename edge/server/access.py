"""Every request gets an id, a line in the log and its numbers; no error leaves the server unshaped.

Logged are the route, the status, times and token counts: no text of a conversation, no key, no file name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.server.errors import INTERNAL, ApiError, ClientGone, Fault
from edge.server.metrics import Metrics

logger = logging.getLogger("edge.server")

_GOOD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
HUNG_UP = 499  # nginx's status for a client that left; nobody receives it


@dataclass(slots=True)
class Record:
    """What is known of a request when it ends. facts: token counts and the like, from the routes."""

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    facts: dict[str, object] = field(default_factory=dict)


def record_of(scope: Scope) -> Record:
    """The record of the request that is being answered."""
    record = scope["edge.record"]
    assert isinstance(record, Record)
    return record


class Access:
    """ASGI middleware, the outermost."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope["edge.record"] = Record(_request_id(scope))

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except ClientGone:
            record.status = HUNG_UP
        except asyncio.CancelledError:
            record.status = record.status or 503
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client gets an answer and the server lives
            await _fail(exc, record, send_noted)
        finally:
            self._note(scope, record)

    def _note(self, scope: Scope, record: Record) -> None:
        seconds = time.perf_counter() - record.started
        route = getattr(scope.get("route"), "path", "other")  # never the path itself: strangers choose that
        if record.status == HUNG_UP:
            self._metrics.hang_ups.inc()
        self._metrics.requests.labels(route, str(record.status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        line = {
            "event": "request",
            "request_id": record.request_id,
            "method": scope["method"] if scope["method"] in _METHODS else "other",
            "route": route,
            "status": record.status,
            "seconds": round(seconds, 4),
        }
        level = logging.DEBUG if route in _ASKED_ALL_THE_TIME and record.status < 400 else logging.INFO
        logger.log(level, "request", extra={"facts": line | record.facts})


_ASKED_ALL_THE_TIME = ("/health", "/v1/health", "/metrics")  # by supervisors, every few seconds
_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")


def _request_id(scope: Scope) -> str:
    """The client's own id, where it is a harmless one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    text = given.decode("latin-1")
    return text if _GOOD_ID.fullmatch(text) else f"req_{secrets.token_hex(12)}"


async def _fail(exc: Exception, record: Record, send: Send) -> None:
    fault = exc.fault if isinstance(exc, ApiError) else INTERNAL
    if not isinstance(exc, ApiError | TimeoutError):
        log_failure(exc, record.request_id)
    if not record.status:
        await send_fault(fault, send)


async def send_fault(fault: Fault, send: Send) -> None:
    """Answers with an error."""
    body = json.dumps(fault.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **fault.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def log_failure(exc: BaseException, request_id: str) -> None:
    """Where an error arose, by module and line: a traceback would write the machine's paths into the log."""
    places, tb = [], exc.__traceback__
    while tb is not None:
        places.append(f"{tb.tb_frame.f_globals.get('__name__', '?')}:{tb.tb_lineno}")
        tb = tb.tb_next
    line = {
        "event": "failure",
        "request_id": request_id,
        "error": type(exc).__name__,
        "at": " ".join(reversed(places[-6:])),
    }
    logger.error("failure", extra={"facts": line})
