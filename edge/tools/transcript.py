"""Records runs of the agent loop as JSON lines, and plays them again.

A recording holds all that the model said and all that the tools gave, so a replay needs neither: `replay` runs the very
loop over it. With an engine it runs that model against the recorded results instead.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.engine.request import ChatRequest
from edge.engine.sampling import SamplingOptions
from edge.errors import ToolsError
from edge.tools.agent import (
    AgentDone,
    AgentEvent,
    AgentOptions,
    AgentStarted,
    ChatEngine,
    ToolFinished,
    ToolStarted,
    run_agent,
)
from edge.tools.executable import Arguments, CallContext, ExecutableTool, ToolFailure, ToolResult
from edge.tools.policy import Policy
from edge.tools.toolbox import Toolbox
from edge.types import ContentDelta, Event, MalformedCall, Message, Reply, Tool, ToolCall

VERSION = 1


def recorded(events: Iterable[AgentEvent], path: Path) -> Iterator[AgentEvent]:
    """The same events; each is in the file, behind what is there, before it is passed on. Raises ToolsError."""
    try:
        # Calls and results may be private.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ToolsError(f"the transcript {path} cannot be written: {exc.strerror}") from None
    with os.fdopen(fd, "a", encoding="utf-8", errors="replace") as file:
        for event in events:
            if (line := _line(event)) is not None:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
            yield event


def _line(event: AgentEvent) -> dict[str, object] | None:
    match event:
        case AgentStarted(messages, tools, options):
            return {
                "event": "started", "version": VERSION, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "messages": list(messages), "tools": [tool.to_openai() for tool in tools], "options": _options(options),
            }  # fmt: skip
        case Reply():
            return {
                "event": "reply", "content": event.content, "reasoning": event.reasoning,
                "tool_calls": [_call(call) for call in event.tool_calls], "finish_reason": event.finish_reason,
                "malformed_calls": [[call.text, call.reason] for call in event.malformed_calls],
            }  # fmt: skip
        case ToolStarted(call, why):
            return {"event": "tool_started", "call": _call(call), "why": why}
        case ToolFinished(call, result, started, seconds):
            return {
                "event": "tool_finished", "call": _call(call), "started": started, "seconds": round(seconds, 3),
                "text": result.text, "is_error": result.is_error, "cut": result.cut,
            }  # fmt: skip
        case AgentDone(reason, _, n_steps):
            return {"event": "done", "reason": reason, "n_steps": n_steps}
    return None


def _call(call: ToolCall) -> dict[str, object]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _options(options: AgentOptions) -> dict[str, object]:
    request = options.request
    return {
        "tool_choice": request.tool_choice, "max_tokens": request.max_tokens, "max_steps": options.max_steps,
        "max_result_chars": options.max_result_chars, "final_answer": options.final_answer,
        "temperature": request.sampling.temperature, "seed": request.sampling.seed,
    }  # fmt: skip


@dataclass(slots=True)
class Recording:
    """One run of a transcript. reason: None where the file ends before the run did."""

    messages: list[Message]
    tools: tuple[Tool, ...]
    options: Mapping[str, Any]
    replies: list[Reply] = field(default_factory=list)
    results: list[tuple[ToolCall, ToolResult]] = field(default_factory=list)
    reason: str | None = None


def read_transcript(path: Path) -> list[Recording]:
    """The runs of a transcript. A last line that is not whole is left out. Raises ToolsError naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise ToolsError(f"the transcript {path} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ToolsError(f"the transcript {path} is not UTF-8 text") from None
    runs: list[Recording] = []
    for number, line in enumerate(lines, 1):
        try:
            _take(runs, json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
            if number == len(lines) and isinstance(exc, ValueError):
                break  # the program was ended while it wrote
            raise ToolsError(f"the transcript {path}, line {number}, is no event of a run") from None
    if not runs:
        raise ToolsError(f"the transcript {path} holds no run")
    return runs


def _take(runs: list[Recording], line: dict[str, Any]) -> None:
    match line["event"]:
        case "started":
            if line["version"] != VERSION:
                raise TypeError
            tools = [entry["function"] for entry in line["tools"]]
            runs.append(
                Recording(
                    messages=[dict(message) for message in line["messages"]],
                    tools=tuple(Tool(t["name"], t["parameters"], t.get("description", "")) for t in tools),
                    options=dict(line["options"]),
                )
            )
        case "reply":
            calls = tuple(ToolCall(**call) for call in line["tool_calls"])
            malformed = tuple(MalformedCall(text, reason) for text, reason in line["malformed_calls"])
            runs[-1].replies.append(
                Reply(
                    line["content"],
                    line["reasoning"],
                    calls,
                    line["finish_reason"],
                    malformed_calls=malformed,
                )
            )
        case "tool_finished":
            result = ToolResult(line["text"], is_error=line["is_error"], cut=line["cut"])
            runs[-1].results.append((ToolCall(**line["call"]), result))
        case "done":
            runs[-1].reason = line["reason"]


def replay(recording: Recording, engine: ChatEngine | None = None) -> Iterator[AgentEvent]:
    """The run again, from its record alone; with an engine, that model with the recorded results of the tools.

    A call that is not in the record is an error for the model. Where the recorded run was interrupted, so is this one.
    """
    results = _Results(recording.results)
    tools = [ExecutableTool(tool=tool, call=results.function(tool.name)) for tool in recording.tools]
    kept = recording.options
    options = AgentOptions(
        request=ChatRequest(
            messages=(), tool_choice=kept["tool_choice"], max_tokens=kept["max_tokens"],
            sampling=SamplingOptions(temperature=kept["temperature"], seed=kept["seed"]),
        ),
        max_steps=kept["max_steps"], max_result_chars=2 * kept["max_result_chars"], final_answer=kept["final_answer"],
    )  # fmt: skip
    messages: list[Message] = list(recording.messages)
    return run_agent(engine or _RecordedEngine(recording), messages, Toolbox(tools), Policy(), options)


class _Results:
    """The recorded results, by call; the same call twice gives both, in their order."""

    def __init__(self, results: Iterable[tuple[ToolCall, ToolResult]]) -> None:
        self._results: dict[str, list[ToolResult]] = {}
        for call, result in results:
            self._results.setdefault(self._key(call.name, call.arguments), []).append(result)

    def _key(self, name: str, arguments: Arguments) -> str:
        return json.dumps([name, arguments], sort_keys=True)

    def function(self, name: str) -> Any:  # noqa: ANN401 - a ToolFunction
        def call(arguments: Arguments, context: CallContext) -> ToolResult:
            left = self._results.get(self._key(name, arguments))
            if not left:
                raise ToolFailure("this call is not in the recording")
            return left.pop(0)

        return call


class _RecordedEngine:
    """Says what was recorded."""

    def __init__(self, recording: Recording) -> None:
        self._replies = list(recording.replies)

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        if not self._replies:
            raise KeyboardInterrupt  # as it was in the recorded run: it has no answer after this
        reply = self._replies.pop(0)
        if reply.content:
            yield ContentDelta(reply.content)
        yield from reply.tool_calls
        yield reply
