"""Shows an answer as it is made: plain text to a pipe, thinking dimmed and calls as panels on a terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge.types import (
    CallOpened,
    CallWithdrawn,
    ContentDelta,
    ContentWasReasoning,
    Event,
    MalformedCall,
    ReasoningDelta,
    Reply,
    ToolCall,
)

if TYPE_CHECKING:
    from rich.console import Console

# Everything but newline and tab that a terminal would obey rather than show.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text without control characters: a model must not be able to drive the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def call_line(call: ToolCall) -> str:
    """A call on one line, as JSON."""
    return json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)


class PlainRenderer:
    """For pipes and files: the content as it comes, each call as a line of JSON."""

    def __init__(self) -> None:
        self._at_line_start = True

    def show(self, event: Event) -> None:
        """Writes what an event adds to standard output; problems to standard error."""
        match event:
            case ContentDelta(text):
                self._write(printable(text))
            case ToolCall():
                self._write(("" if self._at_line_start else "\n") + call_line(event) + "\n")
            case MalformedCall(text, reason):
                sys.stderr.write(f"not a valid call ({reason}): {printable(text.strip())}\n")
            case CallWithdrawn():
                sys.stderr.write("a tool call did not fit max_tokens or n_ctx and was withdrawn\n")
            case Reply() if not self._at_line_start:
                self._write("\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        if text:
            self._at_line_start = text.endswith("\n")


class TerminalRenderer:
    """For people: thinking dimmed, calls in a panel, what went wrong in words."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._at_line_start = True

    def show(self, event: Event) -> None:
        """Draws what an event adds."""
        match event:
            case ContentDelta(text):
                self._write(text)
            case ReasoningDelta(text):
                self._write(text, style="dim italic")
            case ContentWasReasoning():
                self._note("(the text above was thinking)")
            case CallOpened():
                self._end_line()
                self._console.print("… writing a call", style="dim", end="\r")
            case ToolCall():
                self._panel(event)
            case CallWithdrawn():
                self._note("a tool call did not fit max_tokens or n_ctx and was withdrawn")
            case MalformedCall(text, reason):
                self._note(f"not a valid call ({reason}): {printable(text.strip())}")
            case Reply():
                self._end_line()

    def _panel(self, call: ToolCall) -> None:
        from rich.json import JSON
        from rich.panel import Panel
        from rich.text import Text

        arguments = printable(json.dumps(call.arguments, ensure_ascii=False))
        title = Text(printable(call.name), style="bold")
        self._console.print(
            Panel(JSON(arguments), title=title, title_align="left", border_style="cyan", expand=False)
        )
        self._at_line_start = True

    def _write(self, text: str, style: str | None = None) -> None:
        # Not console.print: it would wrap each piece as if it were a line of its own.
        self._console.out(printable(text), style=style, end="", highlight=False)
        self._at_line_start = text.endswith("\n")

    def _note(self, text: str) -> None:
        self._end_line()
        self._console.print(text, style="yellow", markup=False, highlight=False)

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._console.print()
            self._at_line_start = True


def show_all(events: Iterator[Event], renderer: PlainRenderer | TerminalRenderer) -> Reply:
    """Shows a stream to its end; returns the reply."""
    for event in events:
        renderer.show(event)
        if isinstance(event, Reply):
            return event
    raise AssertionError("a stream ends with a Reply")


def make_renderer() -> PlainRenderer | TerminalRenderer:
    """The renderer for where standard output goes."""
    if not sys.stdout.isatty():
        return PlainRenderer()
    from rich.console import Console

    return TerminalRenderer(Console())  # rich honours NO_COLOR
