"""Events of the engine to the chunks of a stream, for chat and for plain completions.

A tool call goes out as one delta when it is whole, so that no client is ever left with half of one. Where a client has
asked for it (and the engine therefore tells of `CallProgress`), the arguments go out as they are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from edge.server.partial_call import PartialCall
from edge.server.replies import Heading, Json, call_document, chat_logprobs, completion_choice, timings, usage
from edge.types import (
    CallOpened,
    CallProgress,
    CallWithdrawn,
    ContentDelta,
    Event,
    ReasoningDelta,
    Reply,
    ToolCall,
)


class Chunks(Protocol):
    """Makes the chunks of one response; remembers what it has sent of each choice."""

    def start(self) -> Iterator[Json]:
        """What is sent before the first event."""

    def take(self, index: int, event: Event) -> Iterator[Json]:
        """The chunks that an event of choice `index` becomes."""

    def end(self, replies: Sequence[Reply]) -> Iterator[Json]:
        """What is sent when all choices are finished."""


class ChatChunks:
    """Chunks of a chat completion."""

    def __init__(self, heading: Heading, n: int, *, include_usage: bool) -> None:
        self._heading, self._include_usage = heading, include_usage
        self._n_calls = [0] * n
        self._open: dict[int, PartialCall] = {}

    def start(self) -> Iterator[Json]:
        for index in range(len(self._n_calls)):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def take(self, index: int, event: Event) -> Iterator[Json]:
        match event:
            case ContentDelta(text, logprobs):
                found = chat_logprobs(logprobs) if logprobs else None
                yield self._chunk(index, {"content": text}, logprobs=found)
            case ReasoningDelta(text):
                yield self._chunk(index, {"reasoning_content": text})
            case CallOpened() | CallWithdrawn():
                self._forget(index)
            case CallProgress(text):
                yield from self._progress(index, text)
            case ToolCall():
                if not self._forget(index):
                    yield self._chunk(index, {"tool_calls": [self._call(index, event)]})
            case Reply():
                yield self._chunk(index, {}, finish_reason=event.finish_reason)

    def _progress(self, index: int, text: str) -> Iterator[Json]:
        partial = self._open.setdefault(index, PartialCall())
        was_named = partial.name is not None
        piece = partial.feed(text)
        if partial.name is not None and not was_named:
            call = self._call(index, ToolCall("", partial.name, {}))
            function: Json = {"name": partial.name, "arguments": ""}
            yield self._chunk(index, {"tool_calls": [call | {"function": function}]})
        if piece:
            delta = {"index": self._n_calls[index] - 1, "function": {"arguments": piece}}
            yield self._chunk(index, {"tool_calls": [delta]})

    def _forget(self, index: int) -> bool:
        """Ends what is open of a call; whether anything of it was sent."""
        partial = self._open.pop(index, None)
        return partial is not None and partial.name is not None

    def _call(self, index: int, call: ToolCall) -> Json:
        number = self._n_calls[index]
        self._n_calls[index] += 1
        return {"index": number} | call_document(self._heading.call_id(index, number), call)

    def end(self, replies: Sequence[Reply]) -> Iterator[Json]:
        if self._include_usage:
            document = self._document([])
            yield document | {"usage": usage(replies, len(replies)), "timings": timings(replies)}

    def _chunk(
        self, index: int, delta: Json, *, logprobs: Json | None = None, finish_reason: str | None = None
    ) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return self._document([choice])

    def _document(self, choices: Sequence[Json]) -> Json:
        document = self._heading.document("chatcmpl", "chat.completion.chunk", choices)
        return document | {"usage": None} if self._include_usage else document


class CompletionChunks:
    """Chunks of a plain completion. echo: what each choice begins with, if anything."""

    def __init__(
        self, heading: Heading, *, n_per_prompt: int, echo: Sequence[str], include_usage: bool
    ) -> None:
        self._heading, self._n_per_prompt, self._include_usage = heading, n_per_prompt, include_usage
        self._echo = echo
        self._offsets: dict[int, int] = {}

    def start(self) -> Iterator[Json]:
        for index, text in enumerate(self._echo):
            yield self._piece(index, text)

    def take(self, index: int, event: Event) -> Iterator[Json]:
        match event:
            case ContentDelta():
                yield self._piece(index, event.text, event)
            case Reply():
                yield self._document([completion_choice(index, "", (), event.finish_reason, offset=0)])

    def _piece(self, index: int, text: str, event: ContentDelta | None = None) -> Json:
        offset = self._offsets.get(index, 0)
        self._offsets[index] = offset + len(text)
        logprobs = event.logprobs if event else ()
        return self._document([completion_choice(index, text, logprobs, None, offset=offset)])

    def end(self, replies: Sequence[Reply]) -> Iterator[Json]:
        if self._include_usage:
            counts = usage(replies, self._n_per_prompt)
            yield self._document([]) | {"usage": counts, "timings": timings(replies)}

    def _document(self, choices: Sequence[Json]) -> Json:
        document = self._heading.document("cmpl", "text_completion", choices)
        return document | {"usage": None} if self._include_usage else document
