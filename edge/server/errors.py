"""Errors as the wire has them: OpenAI's error object, and which of our errors becomes which status.

    ApiError            an answer that is an error: status, message, type, code, param
    ClientGone          the client hung up; there is nobody to answer

The one place where errors of other rooms are translated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.errors import (
    ContextOverflow,
    DeadlineExceeded,
    EdgeError,
    EngineClosed,
    EngineError,
    QueueFull,
    RequestCancelled,
    RequestError,
    TemplateError,
    ToolsError,
    UnsupportedSchema,
)

BAD_REQUEST = "invalid_request_error"


class ClientGone(Exception):
    """The client has closed the connection."""


@dataclass(frozen=True, slots=True)
class Fault:
    """OpenAI's error object, with its HTTP status and headers. extra: further facts in the object."""

    status: int
    message: str
    type: str = BAD_REQUEST
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """The JSON that the client gets."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error | dict(self.extra)}


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def refuse(message: str, *, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """A 400 for something in the request."""
    return ApiError(Fault(400, message, code=code, param=param))


def unavailable(message: str, code: str, retry_after_s: float) -> ApiError:
    """A 503 that may be tried again."""
    return ApiError(
        Fault(503, message, "server_error", code, headers={"Retry-After": str(math.ceil(retry_after_s))})
    )


def fault_of(error: EdgeError) -> Fault:
    """What a client is told of one of our errors. Facts of the machine (paths, native status) are left out."""
    match error:
        case ContextOverflow():
            facts = {"n_prompt_tokens": error.n_prompt_tokens, "n_ctx": error.n_ctx}
            return Fault(400, str(error), code="context_length_exceeded", param="messages", extra=facts)
        case UnsupportedSchema():
            param = error.tool if error.tool == "response_format" else "tools"
            return Fault(400, str(error), code="unsupported_schema", param=param)
        case ToolsError():
            return Fault(400, str(error), code="invalid_tools", param="tools")
        case TemplateError():
            return Fault(400, str(error), code="template_error", param="messages")
        case RequestError():
            return Fault(400, str(error), code="invalid_value")
        case QueueFull():
            wait = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
            return Fault(429, str(error), "rate_limit_error", "queue_full", headers=wait)
        case DeadlineExceeded():
            return Fault(504, str(error), "server_error", "deadline_exceeded", headers=_NOT_AGAIN)
        case EngineClosed() | RequestCancelled():
            return Fault(503, "the server is shutting down", "server_error", "shutting_down", headers=_SOON)
        case EngineError():
            return Fault(500, _FAILED, "server_error", "engine_error")
        case _:
            return INTERNAL


# OpenAI's clients repeat a request after most statuses; one that took too long would do so again.
_NOT_AGAIN = {"x-should-retry": "false"}
_SOON = {"Retry-After": "5"}
_FAILED = "the engine failed on this request and gave it up; others are not affected"
INTERNAL = Fault(500, "an error inside the server; its log says more", "server_error", "internal_error")
