"""`/v1/chat/completions` and `/v1/completions`: from the request to the answer, whole or in pieces."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge.errors import EdgeError
from edge.server.access import log_failure, record_of
from edge.server.answers import Answers
from edge.server.body import read_body
from edge.server.chunks import ChatChunks, Chunks, CompletionChunks
from edge.server.errors import ClientGone, fault_of
from edge.server.replies import Heading, Json, chat_document, completion_document
from edge.server.service import Service
from edge.server.sse import DONE, SILENCE, EventStream, comment, data
from edge.server.translate import Asked, chat_asked, completion_asked
from edge.server.wire import ChatBody, CompletionBody
from edge.types import Event, PrefillProgress, Reply


async def chat_completions(service: Service, request: Request) -> Response:
    """Answers a chat completion. Raises ApiError, EdgeError, ClientGone."""
    options = service.options
    with service.bodies.holding() as hold:
        body = await read_body(request, ChatBody, hold, options.read_timeout_s)
        asked = await service.in_thread(chat_asked, body, options)
        answers = await _start(service, request, asked)
    heading = _heading(service)
    chunks = ChatChunks(heading, len(asked.requests), include_usage=asked.include_usage)
    return await _respond(service, request, asked, answers, chunks, partial(chat_document, heading))


async def completions(service: Service, request: Request) -> Response:
    """Answers a plain completion. Raises ApiError, EdgeError, ClientGone."""
    options = service.options
    with service.bodies.holding() as hold:
        body = await read_body(request, CompletionBody, hold, options.read_timeout_s)
        asked = completion_asked(body, options)
        answers = await _start(service, request, asked)
    heading = _heading(service)
    chunks = CompletionChunks(
        heading, n_per_prompt=asked.n_per_prompt, echo=asked.echo, include_usage=asked.include_usage
    )
    whole = partial(completion_document, heading, n_per_prompt=asked.n_per_prompt, echo=asked.echo)
    return await _respond(service, request, asked, answers, chunks, whole)


def _heading(service: Service) -> Heading:
    return Heading(secrets.token_hex(12), int(time.time()), service.options.model_id)


async def _start(service: Service, request: Request, asked: Asked) -> Answers:
    return await service.answers(asked.requests, asked.deadline_s, request.receive, wants_pieces=asked.stream)


async def _respond(
    service: Service,
    request: Request,
    asked: Asked,
    answers: Answers,
    chunks: Chunks,
    whole: Callable[[Sequence[Reply]], Json],
) -> Response:
    collected = _Collected(service, request, len(asked.requests))
    try:
        if asked.stream:
            # Until something is there to send, a failure can still be an HTTP status.
            first = await answers.next(service.options.keep_alive_s)
            return EventStream(
                _pieces(service, answers, chunks, collected, first),
                on_end=partial(service.release, answers),
                write_timeout_s=service.options.write_timeout_s,
            )
        while not collected.is_complete:
            if (found := await answers.next(service.options.deadline_s)) is not None:
                collected.note(*found)
    except BaseException:
        service.release(answers)
        raise
    service.release(answers)
    return JSONResponse(whole(collected.replies))


class _Collected:
    """The replies that have come so far, noted for the log and the metrics."""

    def __init__(self, service: Service, request: Request, n: int) -> None:
        self._service, self.record, self._n = service, record_of(request.scope), n
        self._replies: dict[int, Reply] = {}

    def note(self, index: int, event: Event) -> None:
        if isinstance(event, Reply):
            self._replies[index] = event
            self._service.metrics.add(event)
            if self.is_complete:
                self.record.facts |= _facts(self.replies)

    @property
    def is_complete(self) -> bool:
        return len(self._replies) == self._n

    @property
    def replies(self) -> list[Reply]:
        return [self._replies[i] for i in range(self._n)]


def _facts(replies: Sequence[Reply]) -> Json:
    first = replies[0]
    return {
        "prompt_tokens": first.usage.prompt_tokens,
        "cached_tokens": first.usage.cached_tokens,
        "completion_tokens": sum(reply.usage.completion_tokens for reply in replies),
        "tool_calls": sum(len(reply.tool_calls) for reply in replies),
        "finish_reason": first.finish_reason,
        "ttft_s": round(first.timings.ttft_s, 4),
    }


async def _pieces(
    service: Service,
    answers: Answers,
    chunks: Chunks,
    collected: _Collected,
    found: tuple[int, Event] | None,
) -> AsyncIterator[bytes]:
    """The stream's bytes; `found` is the event that has come already, if any."""
    for chunk in chunks.start():
        yield data(chunk)
    try:
        while True:
            yield _piece(chunks, found)
            if found is not None:
                collected.note(*found)
            if collected.is_complete:
                break
            found = await answers.next(service.options.keep_alive_s)
    except ClientGone:
        collected.record.status = 499
        return
    except EdgeError as exc:
        # The status is long sent. Without `[DONE]` no client takes this for the end of a whole answer.
        log_failure(exc, collected.record.request_id)
        yield data(fault_of(exc).body())
        return
    for chunk in chunks.end(collected.replies):
        yield data(chunk)
    yield DONE


def _piece(chunks: Chunks, found: tuple[int, Event] | None) -> bytes:
    if found is None:
        return SILENCE
    index, event = found
    if isinstance(event, PrefillProgress):
        return comment(f"prefill {event.n_done}/{event.n_prompt}")
    return b"".join(data(chunk) for chunk in chunks.take(index, event))
