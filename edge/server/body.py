"""Reads a request's body within its bounds and makes a checked value of it. Trusts nothing about it.

JSON is read by pydantic's parser: it knows no NaN, no half surrogate pairs, and nests 200 levels at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from edge.server.errors import ApiError, ClientGone, Fault, refuse, unavailable

Body = TypeVar("Body", bound=BaseModel)
_BODIES_AT_ONCE = 4  # times the size that one may have


class BodyBudget:
    """How many bytes of bodies are held while they are read, of all requests together."""

    def __init__(self, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._left = _BODIES_AT_ONCE * max_body_bytes

    @contextmanager
    def holding(self) -> Iterator[Hold]:
        """Gives back at the end what was taken in between."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self._left += hold.n_bytes

    def take(self, n_bytes: int) -> None:
        """Raises ApiError (503) when there is no more to be had."""
        if n_bytes > self._left:
            raise unavailable("too many large requests at once", "too_many_bodies", 1)
        self._left -= n_bytes


class Hold:
    """The bytes of one body."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.n_bytes, self.max_bytes = 0, budget.max_body_bytes

    def add(self, n_bytes: int) -> None:
        """Raises ApiError: 413 when this body is too large, 503 when all are together."""
        if self.n_bytes + n_bytes > self.max_bytes:
            raise too_large(self.max_bytes)
        self._budget.take(n_bytes)
        self.n_bytes += n_bytes


def too_large(max_body_bytes: int) -> ApiError:
    """The answer to a body that is too large."""
    message = f"the request body is larger than {max_body_bytes} bytes"
    return ApiError(Fault(413, message, code="request_too_large"))


async def read_body(request: Request, model: type[Body], hold: Hold, timeout_s: float) -> Body:
    """The checked body. Raises ApiError for anything but that, ClientGone when the rest of it never comes."""
    data = await _read_bytes(request, hold, timeout_s)
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as exc:
        raise refuse(f"the request body is not JSON: {exc}", code="invalid_json") from None
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise _explain(exc) from None


async def _read_bytes(request: Request, hold: Hold, timeout_s: float) -> bytes:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(
            Fault(415, "the request body is compressed; send it as it is", code="unsupported_encoding")
        )
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > hold.max_bytes:
        raise too_large(hold.max_bytes)
    data = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                hold.add(len(chunk))
                data += chunk
    except TimeoutError:
        raise ApiError(
            Fault(408, f"the request body did not come within {timeout_s:g} s", code="timeout")
        ) from None
    except ClientDisconnect:
        raise ClientGone from None
    return bytes(data)


def _explain(error: ValidationError) -> ApiError:
    """The first thing that is wrong, with its place."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = _place(first["loc"])
    if first["type"] == "extra_forbidden":
        return refuse(f"Unknown parameter: '{place}'.", param=place, code="unknown_parameter")
    if first["type"] == "missing":
        message = f"Missing required parameter: '{place}'."
        return refuse(message, param=place, code="missing_required_parameter")
    code = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    detail = first["msg"].removeprefix("Value error, ")
    return refuse(f"{place}: {detail}" if place else detail, param=place or None, code=code)


def _place(loc: tuple[int | str, ...]) -> str:
    """`messages[0].content`; what pydantic adds for the members of a union is left out."""
    place = ""
    for part in loc:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not part.isidentifier() or part in _UNION_MEMBERS:
            continue
        else:
            place += f".{part}" if place else part
    return place[:200]


_UNION_MEMBERS = {"str", "int", "bool", "float", "none"}
