"""Tools that run nowhere: a recorded response where there is one, otherwise an invented one that is always the same.

In the form of StableToolBench's server, `{"error": ..., "response": ...}`. For measuring without the real services;
what a simulated tool answers is no truth about anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge.tools.executable import Arguments, CallContext, ExecutableTool, ToolResult
from edge.types import Tool

_ERRORS = (
    "Timeout: the service did not answer",
    "Unauthorized: the key was not accepted",
    "Service unavailable",
)


@dataclass(frozen=True, slots=True)
class Recording:
    """What a tool once answered to a call."""

    name: str
    arguments: Mapping[str, object]
    response: object


class Simulator:
    """Makes tools executable.

    error_rate: share of the calls, by tool and arguments, that fail as a service does; the same ones each time.
    """

    def __init__(self, recordings: Iterable[Recording] = (), *, error_rate: float = 0.0) -> None:
        self._recorded = {_key(r.name, r.arguments): r.response for r in recordings}
        self._error_rate = error_rate

    def executable(self, tool: Tool) -> ExecutableTool:
        """The tool with an answer to every call; that the arguments are valid is checked by who runs it."""

        def call(arguments: Arguments, context: CallContext) -> ToolResult:
            return self._answer(tool, arguments)

        return ExecutableTool(tool=tool, call=call, source="simulator")

    def _answer(self, tool: Tool, arguments: Arguments) -> ToolResult:
        key = _key(tool.name, arguments)
        if key in self._recorded:
            return _result("", self._recorded[key])
        draw = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:4], "big")
        if draw / 2**32 < self._error_rate:
            return _result(_ERRORS[draw % len(_ERRORS)], "")
        return _result("", {"tool": tool.name, "arguments": arguments, "result": f"{draw:08x}"})


def _result(error: str, response: object) -> ToolResult:
    text = json.dumps({"error": error, "response": response}, ensure_ascii=False)
    return ToolResult(text, is_error=bool(error))


def _key(name: str, arguments: Mapping[str, object]) -> str:
    return json.dumps([name, arguments], sort_keys=True)
