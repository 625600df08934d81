"""What an executable tool is, and what its function is given and gives back. Runs nothing itself.

A tool's function gets the arguments, already valid against the schema, and a `CallContext`; it returns a `ToolResult`,
or text, or raises `ToolFailure` with a sentence for the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge.types import JsonValue, Tool

Effect: TypeAlias = Literal["read", "write", "send", "execute", "network"]
EFFECTS: tuple[Effect, ...] = ("read", "write", "send", "execute", "network")
ASKED_EFFECTS: frozenset[Effect] = frozenset({"write", "send", "execute"})
Arguments: TypeAlias = dict[str, JsonValue]


class ToolFailure(Exception):
    """A tool could not do what was asked. The text goes to the model, so that it can do better."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the model is told. cut: the text was longer and says so at its end."""

    text: str
    is_error: bool = False
    cut: bool = False


class CallContext:
    """One running call: its deadline, whether it was cancelled, and where it reports progress.

    A function that waits for something registers with `on_cancel` what ends the wait; it is called from another
    thread, at once if the call is already cancelled.
    """

    def __init__(self, timeout_s: float, on_progress: Callable[[str], None] = lambda text: None) -> None:
        self.timeout_s = timeout_s
        self.progress = on_progress
        self._deadline = time.monotonic() + timeout_s
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """The call was stopped or has passed its deadline; its result is not waited for any longer."""
        return self._cancelled.is_set() or self.remaining_s == 0

    def wait(self, seconds: float) -> bool:
        """Sleeps; True as soon as the call is cancelled."""
        return self._cancelled.wait(min(seconds, self.remaining_s)) or self.cancelled

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Registers what ends the wait."""
        with self._lock:
            if not self._cancelled.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Stops the call, as far as its function takes notice."""
        with self._lock:
            self._cancelled.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


Outcome: TypeAlias = ToolResult | str
ToolFunction: TypeAlias = Callable[[Arguments, CallContext], Outcome | Awaitable[Outcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutableTool:
    """A tool with the function behind it.

    effects: what a call can do besides computing; decides whether the user is asked.
    source: where it comes from (builtin, python, config, mcp:NAME); policies can name it.
    normalize: the arguments as the policy compares them, so that `a/../b` is no way around a rule about `b`.
    """

    tool: Tool
    call: ToolFunction
    effects: frozenset[Effect] = frozenset()
    source: str = "python"
    timeout_s: float = 30.0
    normalize: Callable[[Arguments], Arguments] | None = None

    @property
    def name(self) -> str:
        """The name that the model calls."""
        return self.tool.name
