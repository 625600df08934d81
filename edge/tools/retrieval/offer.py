"""Offers a conversation the tools of a catalogue that it needs: some at its beginning, others when they come up.

What a model has read is kept as a computed state, as long as the prompt's beginning does not change. So the tools
found for the first message stand in the system block and stay there; one that is found later is described in the
message that it was found for, and is callable from there on (`ChatRequest.revealed_tools`). The caller's messages are
not changed: `apply` makes the request's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from edge.engine.request import ChatRequest
from edge.errors import RetrievalError, ToolsError
from edge.grammar import compile_tool, parse_tools
from edge.tools.retrieval.index import ToolIndex
from edge.types import Event, Message, Tool

DEFAULT_K = 5
BUDGET_SHARE = 4  # a quarter of the context for the first tools, another for all that are revealed later
_CONTEXT_CHARS = 2_000  # of earlier messages, for the search
_ANNOTATIONS = ("description", "title", "examples", "example", "default", "$comment")
_REVEAL = "These functions are available now, too:\n<tools>\n{tools}\n</tools>"
_REVEAL_FIRST = """# Tools

You may call one or more functions to assist with the user query:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


class Streaming(Protocol):
    """The part of an `Engine` that is needed here."""

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        """The answer as it is made."""


@dataclass(slots=True)
class ToolOffer:
    """The tools of one conversation. Call `apply` for each request; it finds out by itself what is new.

    k: tools found for a message, at most. budget_tokens: of their descriptions, for the first message's tools and once
    more for all later ones. A tool that does not fit is given without its parameters' descriptions, or left out.
    """

    index: ToolIndex
    count_tokens: Callable[[str], int]
    budget_tokens: int
    k: int = DEFAULT_K
    tools: tuple[Tool, ...] = ()  # in the system block
    _revealed: dict[int, tuple[Tool, ...]] = field(default_factory=dict)  # by the message that describes them
    _seen: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.budget_tokens < 1:
            raise RetrievalError(f"the tools' budget is {self.budget_tokens} tokens; at least 1 is needed")

    @property
    def revealed(self) -> tuple[Tool, ...]:
        """The tools that came up later, in that order."""
        return tuple(tool for _, tools in sorted(self._revealed.items()) for tool in tools)

    def apply(self, request: ChatRequest) -> ChatRequest:
        """The request with the tools that its conversation needs; its own tools stand in front of them.

        Raises RetrievalError where a call is required and no tool has a word in common with what was said.
        """
        given = parse_tools([tool.to_openai() if isinstance(tool, Tool) else tool for tool in request.tools])
        self._forget_what_changed(request.messages)
        known = {tool.name for tool in (*given, *self.tools, *self.revealed)}
        for at in range(len(self._seen), len(request.messages)):
            if request.messages[at].get("role") == "user":
                found = self._found(request.messages[: at + 1], known, first=not self._has_begun())
                known |= {tool.name for tool in found}
                self._take(at, found)
            self._seen.append(request.messages[at])
        messages = [self._described(at, message, given) for at, message in enumerate(request.messages)]
        if request.tool_choice == "required" and not (given or self.tools or self.revealed):
            raise RetrievalError(
                "tool_choice is 'required', and no tool of the catalogue fits what was asked; "
                "ask in the catalogue's words, or search by meaning too (--embed-model)"
            )
        return replace(
            request,
            messages=messages,
            tools=(*given, *self.tools),
            revealed_tools=(*request.revealed_tools, *self.revealed),
        )

    def _has_begun(self) -> bool:
        return any(message.get("role") == "user" for message in self._seen)

    def _take(self, at: int, found: tuple[Tool, ...]) -> None:
        if not self._has_begun():
            self.tools = found
        elif found:
            self._revealed[at] = found

    def _forget_what_changed(self, messages: Sequence[Message]) -> None:
        """Goes back to where the conversation still is the one that was seen."""
        n_same = 0
        while n_same < min(len(self._seen), len(messages)) and self._seen[n_same] == messages[n_same]:
            n_same += 1
        del self._seen[n_same:]
        self._revealed = {at: tools for at, tools in self._revealed.items() if at < n_same}
        if not self._has_begun():
            self.tools = ()

    def _found(self, messages: Sequence[Message], known: set[str], *, first: bool) -> tuple[Tool, ...]:
        *earlier, last = messages
        said = "\n".join(
            _text(message) for message in earlier if message.get("role") in ("user", "assistant")
        )
        hits = self.index.search(_text(last), self.k, context=said[-_CONTEXT_CHARS:])
        left = self.budget_tokens - (0 if first else sum(map(self._n_tokens, self.revealed)))
        chosen: list[Tool] = []
        for hit in hits:
            fitting = None if hit.entry.tool.name in known else self._fitting(hit.entry.tool, left)
            if fitting is not None:
                chosen.append(fitting)
                known = known | {fitting.name}  # of two tools of one name the better one is taken
                left -= self._n_tokens(fitting)
        return tuple(chosen)

    def _fitting(self, tool: Tool, left: int) -> Tool | None:
        """The tool as it fits, None where it does not or where its calls cannot be held to its schema."""
        try:
            compile_tool(tool)
        except ToolsError:
            return None
        return next((form for form in (tool, slimmed(tool)) if self._n_tokens(form) <= left), None)

    def _n_tokens(self, tool: Tool) -> int:
        return self.count_tokens(_line(tool) + "\n")

    def _described(self, at: int, message: Message, given: Sequence[Tool]) -> Message:
        """The message with the description of the tools that were found for it."""
        tools = self._revealed.get(at)
        if not tools:
            return message
        before = given or self.tools or any(n < at for n in self._revealed)
        text = (_REVEAL if before else _REVEAL_FIRST).format(tools="\n".join(map(_line, tools)))
        return {**message, "content": f"{text}\n\n{_text(message)}"}


class OfferingEngine:
    """An engine that offers, of all tools that a request brings, those that its conversation needs."""

    def __init__(self, engine: Streaming, offer: ToolOffer) -> None:
        self._engine, self.offer = engine, offer

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        """The answer to the request with fewer tools."""
        return self._engine.stream(self.offer.apply(replace(request, tools=())))


def slimmed(tool: Tool) -> Tool:
    """The tool with the first sentence of its description, and none for its parameters; the same calls are valid."""
    first = tool.description.strip().partition("\n")[0].partition(". ")[0]
    schema = tool.parameters
    return Tool(tool.name, schema if isinstance(schema, bool) else _bare(dict(schema)), first)


def _bare(schema: dict[str, object]) -> dict[str, object]:
    """A schema without what explains it; below `properties` the keys are names and stay."""
    kept: dict[str, object] = {}
    for key, value in schema.items():
        if key in _ANNOTATIONS:
            continue
        if key in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, dict):
            kept[key] = {
                name: _bare(child) if isinstance(child, dict) else child for name, child in value.items()
            }
        elif key in ("enum", "const"):
            kept[key] = value
        elif isinstance(value, dict):
            kept[key] = _bare(value)
        elif isinstance(value, list):
            kept[key] = [_bare(child) if isinstance(child, dict) else child for child in value]
        else:
            kept[key] = value
    return kept


def _line(tool: Tool) -> str:
    return json.dumps(tool.to_openai(), ensure_ascii=False, default=dict)


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
