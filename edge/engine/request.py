"""What one chat request asks for, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge.engine.sampling import SamplingOptions
from edge.errors import RequestError
from edge.grammar import CompiledTool, compile_tool, parse_tools
from edge.types import Message, Tool

DEFAULT_MAX_TOKENS = 512
MAX_CALLS = 16  # per answer; a model that repeats one call would otherwise do so until max_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One answer to one conversation.

    tools: `Tool` values or OpenAI-style dicts.
    tool_choice: auto, none, required, or the name of a tool (OpenAI's object form too).
    parallel_tool_calls: several calls in one answer, up to MAX_CALLS; otherwise it ends behind the first.
    max_tokens: completion tokens at most; a call that does not fit is withdrawn, not cut.
    grammar: off, calls are parsed and validated but not constrained.
    force_text: what the grammar leaves no choice about is decoded in runs and not sampled.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool | Mapping[str, object]] = ()
    tool_choice: str | Mapping[str, object] = "auto"
    max_tokens: int = DEFAULT_MAX_TOKENS
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    grammar: bool = True
    force_text: bool = True
    parallel_tool_calls: bool = True
    stop: Sequence[str] = ()
    enable_thinking: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The tools of a request, compiled. offered: shown in the prompt. callable: may be called."""

    offered: tuple[CompiledTool, ...]
    callable: tuple[CompiledTool, ...]
    forced: bool  # the answer begins with a call
    max_calls: int


def plan_tools(request: ChatRequest) -> ToolPlan:
    """Raises ToolsError, UnsupportedSchema or RequestError for tools or a choice that cannot be honoured."""
    check_request(request)
    tools = parse_tools([tool.to_openai() if isinstance(tool, Tool) else tool for tool in request.tools])
    choice = _choice(request.tool_choice)
    # With the grammar off an unsupported keyword restricts nothing, but the schema must still be one.
    compiled = tuple(compile_tool(tool) for tool in tools)
    max_calls = MAX_CALLS if request.parallel_tool_calls else 1
    if choice == "none":
        return ToolPlan(compiled, (), forced=False, max_calls=max_calls)
    if choice == "auto":
        return ToolPlan(compiled, compiled, forced=False, max_calls=max_calls)
    if not compiled:
        raise RequestError(f"tool_choice is {choice!r}, but no tools are given")
    if choice == "required":
        return ToolPlan(compiled, compiled, forced=True, max_calls=max_calls)
    named = tuple(tool for tool in compiled if tool.tool.name == choice)
    if not named:
        names = ", ".join(tool.tool.name for tool in compiled[:20])
        raise RequestError(f"tool_choice is {choice!r}; allowed are auto, none, required, or one of: {names}")
    return ToolPlan(compiled, named, forced=True, max_calls=1)


def check_request(request: ChatRequest) -> None:
    """Raises RequestError for a number or text outside its range."""
    if request.max_tokens < 1:
        raise RequestError(f"max_tokens is {request.max_tokens}; at least 1 is needed")
    request.sampling.check()
    for stop in request.stop:
        if not isinstance(stop, str) or not stop:
            raise RequestError(f"a stop string is {stop!r}; non-empty texts are allowed")


def _choice(choice: str | Mapping[str, object]) -> str:
    if isinstance(choice, str):
        return choice
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(
            'tool_choice is an object without function.name; e.g. {"function": {"name": "..."}}'
        )
    return name
