"""Runs tool calls, each in a thread of its own, and reports what happens. Whether they may run is decided elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from edge.grammar import compile_tool
from edge.tools.executable import Arguments, CallContext, ExecutableTool, Outcome, ToolFailure, ToolResult
from edge.types import ToolCall

_GRACE_S = 2.0  # what a cancelled call gets to clean up before it is left alone
STOPPED = ToolResult("stopped by the user before it was finished", is_error=True)


@dataclass(frozen=True, slots=True)
class Progress:
    """A running call reported how far it is."""

    key: str
    call: ToolCall
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A call has a result."""

    key: str
    call: ToolCall
    result: ToolResult
    seconds: float


Report: TypeAlias = Progress | Finished


def execute(tool: ExecutableTool, arguments: Arguments, context: CallContext) -> ToolResult:
    """The result of one call, in this thread. Every exception of the tool becomes an error result."""
    try:
        if fault := compile_tool(tool.tool).validate(arguments):
            return ToolResult(f"the arguments are not valid: {fault}", is_error=True)
        outcome = tool.call(arguments, context)
        if inspect.isawaitable(outcome):
            outcome = asyncio.run(_awaited(outcome, context))
        return outcome if isinstance(outcome, ToolResult) else ToolResult(outcome)
    except ToolFailure as exc:
        return ToolResult(str(exc), is_error=True)
    except Exception as exc:  # noqa: BLE001 - a tool is other people's code; the model learns of it and goes on
        return ToolResult(f"{type(exc).__name__}: {exc}", is_error=True)


async def _awaited(outcome: object, context: CallContext) -> Outcome:
    task = asyncio.ensure_future(outcome)  # type: ignore[call-overload]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    context.on_cancel(stop)
    try:
        result: Outcome = await asyncio.wait_for(task, context.remaining_s)
    except (asyncio.CancelledError, TimeoutError):
        raise ToolFailure("the call was cancelled") from None
    return result


class Batch:
    """Calls that run side by side, each under a key of the caller's.

    `reports` yields until each has its result; `cancel` ends them early.
    """

    def __init__(self) -> None:
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._open: dict[str, tuple[ToolCall, CallContext, float]] = {}

    def start(self, key: str, call: ToolCall, tool: ExecutableTool) -> None:
        """Starts a call; it is reported under this key."""
        context = CallContext(tool.timeout_s, lambda text: self._reports.put(Progress(key, call, text)))
        started = time.monotonic()
        self._open[key] = (call, context, started)

        def work() -> None:
            result = execute(tool, call.arguments, context)
            self._reports.put(Finished(key, call, result, time.monotonic() - started))

        # A daemon: a tool that never returns must not keep the program from ending.
        threading.Thread(target=work, name=f"tool {call.name}", daemon=True).start()

    def reports(self) -> Iterator[Report]:
        """Progress and results as they come; a call past its deadline gets an error result."""
        while self._open:
            try:
                report = self._reports.get(timeout=self._next_wait_s())
            except queue.Empty:
                yield from self._overdue()
                continue
            if report.key not in self._open:
                continue  # it was given up before
            if isinstance(report, Finished):
                del self._open[report.key]
            yield report

    def _next_wait_s(self) -> float:
        waits = []
        for _, context, started in self._open.values():
            if context.remaining_s == 0:
                context.cancel()
            waits.append(max(0.0, started + context.timeout_s + _GRACE_S - time.monotonic()))
            waits.append(context.remaining_s or _GRACE_S)
        return min(waits) + 0.01

    def _overdue(self) -> Iterator[Report]:
        now = time.monotonic()
        for key, (call, context, started) in list(self._open.items()):
            if now >= started + context.timeout_s + _GRACE_S:
                del self._open[key]
                text = f"timed out after {context.timeout_s:g} s"
                yield Finished(key, call, ToolResult(text, is_error=True), now - started)

    def cancel(self) -> list[Finished]:
        """Stops what still runs; results for all calls that had none."""
        for _, context, _ in self._open.values():
            context.cancel()
        deadline = time.monotonic() + _GRACE_S
        done: list[Finished] = []
        while self._open and (left := deadline - time.monotonic()) > 0:
            try:
                report = self._reports.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(report, Finished) and report.key in self._open:
                del self._open[report.key]
                done.append(Finished(report.key, report.call, STOPPED, report.seconds))
        now = time.monotonic()
        done += [Finished(k, call, STOPPED, now - started) for k, (call, _, started) in self._open.items()]
        self._open.clear()
        return done
