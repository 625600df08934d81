"""Model text to events, as it streams: thinking, content, calls. Knows tags, not JSON Schema and not tokens.

Text that could still turn out to be the beginning of a tag or a stop string is held back, and so is white
space until something follows it. Inside a call a `</tool_call>` within a JSON string does not end the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from edge.types import CallOpened, CallWithdrawn, ContentDelta, ContentWasReasoning, ReasoningDelta

OPENER, CLOSER = "<tool_call>", "</tool_call>"
THINK, END_THINK = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class CallText:
    """The text between `<tool_call>` and its `</tool_call>`."""

    text: str


@dataclass(frozen=True, slots=True)
class StopHit:
    """A stop string was written; what follows it is not part of the answer."""

    stop: str


ParserEvent: TypeAlias = (
    ContentDelta | ReasoningDelta | ContentWasReasoning | CallOpened | CallWithdrawn | CallText | StopHit
)


class _State(Enum):
    CONTENT = auto()
    THINKING = auto()
    CALL = auto()
    STOPPED = auto()


class OutputParser:
    """Feed it text in pieces of any size; the events do not depend on where the pieces are cut."""

    def __init__(
        self,
        *,
        opens_thinking: bool = False,
        stop: Sequence[str] = (),
        plain: bool = False,
        verbatim: bool = False,
    ) -> None:
        """plain: behind the thinking that the template opened, tags are text like any other.

        verbatim: so is white space, at the ends too.
        """
        self._plain, self._verbatim = plain, verbatim
        self._state = _State.THINKING if opens_thinking else _State.CONTENT
        self._stop = tuple(stop)
        self._held = ""
        self._at_start = True  # white space here is dropped: nothing was written since the last tag
        self._call_end = _CallEnd()

    @property
    def in_call(self) -> bool:
        """Whether `<tool_call>` is open."""
        return self._state is _State.CALL

    @property
    def call_text(self) -> str:
        """What was written of the open call."""
        return self._held

    @property
    def in_thinking(self) -> bool:
        """Whether the text is thinking, where `<tool_call>` opens nothing."""
        return self._state is _State.THINKING

    def feed(self, text: str) -> list[ParserEvent]:
        """The events that `text` completes."""
        self._held += text
        events: list[ParserEvent] = []
        while self._step(events):
            pass
        return events

    def rewrite_call(self, text: str) -> None:
        """Replaces what was written of the open call: the model has gone back in it."""
        self._held, self._call_end = text, _CallEnd()

    def finish(self) -> list[ParserEvent]:
        """The events at the end of the output: held text is released, an open call is withdrawn."""
        if self._state is _State.CALL:
            self._state, self._held = _State.STOPPED, ""
            return [CallWithdrawn()]
        events: list[ParserEvent] = []
        self._emit(events, self._without_end(self._held))
        self._held = ""
        return events

    def _step(self, events: list[ParserEvent]) -> bool:
        """One tag's worth of progress; False when more text is needed."""
        if self._state is _State.STOPPED:
            self._held = ""
            return False
        if self._state is _State.CALL:
            return self._step_call(events)
        markers = self._markers()
        position, marker = _first(self._held, markers)
        if marker is None:
            self._release(events, markers)
            return False
        self._emit(events, self._without_end(self._held[:position]))
        self._held = self._held[position + len(marker) :]
        self._at_start = True
        self._enter(events, marker)
        return True

    def _markers(self) -> tuple[str, ...]:
        # `<think>` inside thinking is one that the template had already opened.
        if self.in_thinking:
            return END_THINK, THINK
        return self._stop if self._plain else (OPENER, THINK, END_THINK, *self._stop)

    def _enter(self, events: list[ParserEvent], marker: str) -> None:
        if marker in self._stop and not self.in_thinking:
            self._state = _State.STOPPED
            events.append(StopHit(marker))
        elif marker == OPENER:
            self._state, self._call_end = _State.CALL, _CallEnd()
            events.append(CallOpened())
        elif marker == THINK:
            self._state = _State.THINKING
        elif self.in_thinking:
            self._state = _State.CONTENT
        else:  # a bare `</think>`: the template had opened it, or the model forgot to
            events.append(ContentWasReasoning())

    def _step_call(self, events: list[ParserEvent]) -> bool:
        end = self._call_end.find(self._held)
        if end is None:
            return False
        events.append(CallText(self._held[:end]))
        self._held = self._held[end + len(CLOSER) :]
        self._state, self._at_start = _State.CONTENT, True
        return True

    def _release(self, events: list[ParserEvent], markers: Sequence[str]) -> None:
        keep = max((_overlap(self._held, marker) for marker in markers), default=0)
        text = self._without_end(self._held[: len(self._held) - keep])
        self._emit(events, text)
        self._held = self._held[len(text) :]

    def _without_end(self, text: str) -> str:
        return text if self._verbatim else text.rstrip()

    def _emit(self, events: list[ParserEvent], text: str) -> None:
        if self._at_start and not self._verbatim:
            text = text.lstrip()
        if not text:
            return
        self._at_start = False
        events.append(ReasoningDelta(text) if self.in_thinking else ContentDelta(text))


def _first(text: str, markers: Sequence[str]) -> tuple[int, str | None]:
    """The earliest marker in `text`; of two at one place the longer."""
    found = [(text.find(marker), -len(marker), marker) for marker in markers]
    hits = [hit for hit in found if hit[0] >= 0]
    return (min(hits)[0], min(hits)[2]) if hits else (-1, None)


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that is a beginning of `marker`."""
    for n in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:n]):
            return n
    return 0


class _CallEnd:
    """Finds the `</tool_call>` that ends a call; remembers how far it has looked.

    For a JSON object that is the first one after the object; for anything else the first one at all.
    """

    def __init__(self) -> None:
        self._scanned = 0
        self._depth = 0
        self._in_string = self._escaped = False
        self._after_object = False

    def find(self, text: str) -> int | None:
        """Index of the closer in `text`, which only ever grows between calls."""
        stripped = text.lstrip()
        if stripped.startswith("{") and not self._after_object:
            self._scan(text)
            if not self._after_object:
                return None
        elif not stripped:
            return None
        start = self._scanned if self._after_object else 0
        position = text.find(CLOSER, start)
        return None if position < 0 else position

    def _scan(self, text: str) -> None:
        for i in range(self._scanned, len(text)):
            char = text[i]
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._in_string = False
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self._after_object, self._scanned = True, i + 1
                    return
        self._scanned = len(text)
