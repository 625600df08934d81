"""The two ways in which a model can say `search` and `choose` in phase 1: marks in its text, or calls.

Marks are what ToolOmni was trained on; its text is free, and read leniently. Calls are what any tool-calling model
knows; they are held to their schemas, so that even a small model says one of the two at each step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from edge.engine.request import ChatRequest
from edge.tools.agent import assistant_message
from edge.tools.open_world.profile import OpenWorldProfile
from edge.tools.open_world.selection import SELECT_TOOLS, names_in
from edge.types import Message, Reply, Tool

SEARCH_TOOLS = "search_tools"
_SEARCH = Tool(
    SEARCH_TOOLS,
    {
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "minLength": 1,
                "maxLength": 200,
                "description": "What the tool should do",
            }
        },
        "required": ["query"],
        "additionalProperties": False,
    },
    "Search the collection for tools by a short description of what one should do.",
)


@dataclass(frozen=True, slots=True)
class Search:
    """The model wants to search."""

    query: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The model has chosen. names: as it wrote them, none if it wrote no names."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Malformed:
    """Neither."""


Step: TypeAlias = Search | Choice | Malformed


class Dialect(Protocol):
    """How requests for a step are made, and how the step is read and put into the conversation."""

    def request(self, base: ChatRequest, found: Sequence[str], *, may_search: bool) -> ChatRequest:
        """The request for the next step. found: what may be chosen."""

    def read(self, reply: Reply) -> Step:
        """What the model said."""

    def said(self, reply: Reply) -> Message:
        """The step as the model will be shown it."""

    def told(self, reply: Reply, text: str) -> Message:
        """What the model is told of its step."""


def dialect_of(profile: OpenWorldProfile) -> Dialect:
    """The dialect that a profile names."""
    return Calls() if profile.actions == "calls" else Marks(*profile.tags.search)


class Marks:
    """`<search>query</search>`, and names in `<tool_call>`."""

    def __init__(self, opening: str, closing: str) -> None:
        self._opening, self._closing = opening, closing

    def request(self, base: ChatRequest, found: Sequence[str], *, may_search: bool) -> ChatRequest:
        """Free text up to the end of a search, or with a `<tool_call>` in it once there is something to choose."""
        # Something that may be called opens the way to <tool_call>. The template is not given it: the prompt says how
        # to choose, and its beginning must not change with what was found.
        return replace(
            base,
            tools=(),
            revealed_tools=(_select_tools(found),) if found else (),
            tool_choice="auto",
            grammar=False,
            parallel_tool_calls=False,
            stop=(self._closing,),
        )

    def read(self, reply: Reply) -> Step:
        """A choice if there is one, otherwise the last search; the engine has cut off what closes it."""
        choice = _choice_text(reply)
        if choice is not None:
            return Choice(tuple(names_in(choice)))
        start = reply.content.rfind(self._opening)
        if start < 0:
            return Malformed()
        return Search(reply.content[start + len(self._opening) :].partition(self._closing)[0].strip())

    def said(self, reply: Reply) -> Message:
        """The text, a search closed again."""
        text = reply.content.rstrip()
        is_open = text.rfind(self._opening) > text.rfind(self._closing)
        choice = _choice_text(reply) if not text else None
        return {"role": "assistant", "content": text + self._closing if is_open else text or choice or ""}

    def told(self, reply: Reply, text: str) -> Message:
        """A turn of the user's."""
        return {"role": "user", "content": text}


class Calls:
    """Calls of search_tools and select_tools, held to their schemas."""

    def request(self, base: ChatRequest, found: Sequence[str], *, may_search: bool) -> ChatRequest:
        """One call: of either where both make sense."""
        either = "required" if may_search else SELECT_TOOLS
        return replace(
            base,
            tools=(_SEARCH,),
            revealed_tools=(_select_tools(found),) if found else (),
            tool_choice=either if found else SEARCH_TOOLS,
            grammar=True,
            parallel_tool_calls=False,
        )

    def read(self, reply: Reply) -> Step:
        """The call; Malformed where it did not fit."""
        if not reply.tool_calls:
            return Malformed()
        call = reply.tool_calls[0]
        if call.name == SEARCH_TOOLS:
            return Search(str(call.arguments.get("query", "")).strip())
        return Choice(tuple(names_in(json.dumps(call.arguments))))

    def said(self, reply: Reply) -> Message:
        """The call, as any other."""
        return assistant_message(reply)

    def told(self, reply: Reply, text: str) -> Message:
        """The call's result."""
        if not reply.tool_calls:
            return {"role": "user", "content": text}
        call = reply.tool_calls[0]
        return {"role": "tool", "name": call.name, "tool_call_id": call.id, "content": text}


def _choice_text(reply: Reply) -> str | None:
    """The text of a choice, valid call or not."""
    if reply.tool_calls:
        call = reply.tool_calls[0]
        return json.dumps({"name": call.name, "arguments": call.arguments})
    if reply.malformed_calls:
        return reply.malformed_calls[0].text
    bare = re.search(r"<tool_call>(.*?)(?:</tool_call>|$)", reply.content, re.DOTALL)
    return bare[1] if bare else None


def _select_tools(names: Sequence[str]) -> Tool:
    items = {"enum": list(names)}
    tools: dict[str, object] = {"type": "array", "items": items, "minItems": 1, "maxItems": len(names)}
    schema = {
        "type": "object",
        "properties": {"tools": tools},
        "required": ["tools"],
        "additionalProperties": False,
    }
    return Tool(SELECT_TOOLS, schema, "Choose the tools that the request needs, the most useful one first.")
