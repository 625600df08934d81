"""Phase 1: the model searches for tools and chooses some. Knows nothing of how tools are run.

One step of the model is a search, a choice, or malformed. Searches are bounded by `max_rounds`, malformed steps by
`max_faults`; behind either bound the phase ends with what it has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from edge.engine.request import ChatRequest
from edge.errors import ContextOverflow, EngineError
from edge.tools.open_world.profile import OpenWorldProfile, fill
from edge.tools.open_world.selection import SELECT_TOOLS, names_in
from edge.tools.retrieval.catalogue import CatalogueTool
from edge.types import Event, Message, Reply, Tool

HowChosen: TypeAlias = Literal["chosen", "fallback", "nothing"]


class ChatEngine(Protocol):
    """The part of an `Engine` that the phases need."""

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        """The answer as it is made; the last event is the `Reply`."""


class Searcher(Protocol):
    """Finds tools: see `edge.tools.retrieval`."""

    def find(self, query: str, k: int) -> Sequence[CatalogueTool]:
        """The k tools that fit best, best first."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A search was made. found: all that it gave, known ones too."""

    query: str
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Faulted:
    """The model did what is no step of the phase. why: what it was told."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """The end of the phase. how: fallback is what the searches found first, for want of a choice."""

    tools: tuple[CatalogueTool, ...]
    how: HowChosen
    n_rounds: int
    n_steps: int
    n_faults: int
    found: tuple[str, ...]  # ids of all tools that any search showed


FindingEvent: TypeAlias = Event | Searched | Faulted | Chosen


def find_tools(
    engine: ChatEngine, request: ChatRequest, question: str, searcher: Searcher, profile: OpenWorldProfile
) -> Iterator[FindingEvent]:
    """Events until a `Chosen`. request: sampling and limits of every step; its messages and tools are replaced."""
    return _Finding(engine, request, question, searcher, profile).events()


@dataclass(slots=True)
class _Finding:
    engine: ChatEngine
    request: ChatRequest
    question: str
    searcher: Searcher
    profile: OpenWorldProfile
    messages: list[Message] = field(default_factory=list)
    found: dict[str, CatalogueTool] = field(default_factory=dict)  # by the name that the model writes
    n_rounds: int = 0
    n_steps: int = 0
    n_faults: int = 0
    chosen: tuple[CatalogueTool, ...] = ()

    def events(self) -> Iterator[FindingEvent]:
        profile = self.profile
        prompt = fill(profile.prompts.retrieval, top_k=profile.top_k, max_rounds=profile.max_rounds)
        self.messages += [
            {"role": "system", "content": prompt},
            {"role": "user", "content": self.question},
        ]
        while not self.chosen and self.n_faults <= self.profile.max_faults and self._has_prospects():
            reply = yield from self._ask()
            if reply is None:
                break
            self.n_steps += 1
            yield from self._take(reply)
        how: HowChosen = "chosen"
        if not self.chosen:
            fallback = (
                tuple(self.found.values())[: self.profile.top_k] if self.profile.fall_back_to_found else ()
            )
            how, self.chosen = ("fallback" if fallback else "nothing"), fallback
        ids = tuple(tool.id for tool in self.found.values())
        yield Chosen(self.chosen, how, self.n_rounds, self.n_steps, self.n_faults, ids)

    def _has_prospects(self) -> bool:
        return bool(self.found) or self.n_rounds < self.profile.max_rounds

    def _ask(self) -> Generator[Event, None, Reply | None]:
        """The model's next step; None where not even shortened results fit the context."""
        while True:
            # Something that may be called opens the way to <tool_call>. The template is not given it: the prompt says
            # how to choose, and its beginning must not change with what was found.
            request = replace(
                self.request,
                messages=tuple(self.messages),
                tools=(),
                revealed_tools=(_select_tools(list(self.found)),) if self.found else (),
                tool_choice="auto",
                grammar=self.profile.constrain_selection,
                parallel_tool_calls=False,
                stop=(self.profile.tags.search[1],),
            )
            try:
                stream = self.engine.stream(request)
                break
            except ContextOverflow:
                if not self._shorten_oldest_result():
                    return None
        for event in stream:
            yield event
            if isinstance(event, Reply):
                return event
        raise EngineError("the generation ended without a reply")

    def _shorten_oldest_result(self) -> bool:
        """Leaves only the names in the oldest search result that still has descriptions."""
        opening = self.profile.tags.information[0]
        for at, message in enumerate(self.messages):
            text = str(message["content"])
            if message["role"] == "user" and opening in text and '{"name"' in text:
                names = re.findall(r'\{"name": ("(?:[^"\\]|\\.)*")', text)
                short = self._information("\n".join(json.loads(name) for name in names))
                self.messages[at] = {"role": "user", "content": short}
                return True
        return False

    def _take(self, reply: Reply) -> Iterator[FindingEvent]:
        """Does what the step says, and tells the model what came of it."""
        choice = _choice(reply)
        query = self._query(reply.content)
        if choice is not None:
            yield from self._choose(choice)
        elif query is not None and not query.strip():
            yield self._fault(reply.content, self.profile.prompts.empty_query)
        elif query is not None:
            self._say("assistant", f"{reply.content.rstrip()}{self._closing(reply.content)}")
            yield from self._search(query.strip())
        else:
            yield self._fault(reply.content, self.profile.prompts.invalid_action)

    def _query(self, text: str) -> str | None:
        """The last search in a text; the engine has cut off its closing tag."""
        opening, closing = self.profile.tags.search
        start = text.rfind(opening)
        return None if start < 0 else text[start + len(opening) :].partition(closing)[0]

    def _closing(self, text: str) -> str:
        closing = self.profile.tags.search[1]
        return "" if text.rstrip().endswith(closing) else closing

    def _search(self, query: str) -> Iterator[FindingEvent]:
        prompts = self.profile.prompts
        if self.n_rounds >= self.profile.max_rounds:
            yield self._fault("", fill(prompts.no_rounds_left, names=", ".join(self.found)), remember=False)
            return
        self.n_rounds += 1
        hits = list(self.searcher.find(query, self.profile.top_k))
        known = [hit.tool.name for hit in hits if hit.tool.name in self.found]
        new: dict[str, CatalogueTool] = {}
        for hit in hits:
            if hit.tool.name not in known:
                new.setdefault(hit.tool.name, hit)  # of two of one name the better one
        self.found |= new
        lines = [_document(hit, self.profile.max_document_chars) for hit in new.values()]
        lines += [f"(seen above: {', '.join(known)})"] if known else []
        text = self._information("\n".join(lines) or prompts.no_result)
        if self.n_rounds == self.profile.max_rounds:
            text += f"\n{prompts.last_round}"
        self._say("user", text)
        yield Searched(query, tuple(hit.id for hit in hits))

    def _information(self, text: str) -> str:
        opening, closing = self.profile.tags.information
        return f"{opening}\n{text}\n{closing}"

    def _choose(self, text: str) -> Iterator[FindingEvent]:
        named = names_in(text)
        self.chosen = tuple(self.found[name] for name in named if name in self.found)
        if self.chosen:
            return
        prompts, names = self.profile.prompts, ", ".join(self.found)
        if not self.found:
            yield self._fault(text, prompts.nothing_found_yet)
        elif named:
            yield self._fault(text, fill(prompts.unknown_tools, unknown=", ".join(named), names=names))
        else:
            yield self._fault(text, prompts.invalid_action)

    def _fault(self, text: str, why: str, *, remember: bool = True) -> Faulted:
        self.n_faults += 1
        if remember:
            self._say("assistant", text)
        self._say("user", why)
        return Faulted(text, why)

    def _say(self, role: str, content: str) -> None:
        self.messages.append({"role": role, "content": content})


def _choice(reply: Reply) -> str | None:
    """The text of a choice, valid call or not."""
    if reply.tool_calls:
        call = reply.tool_calls[0]
        return json.dumps({"name": call.name, "arguments": call.arguments})
    if reply.malformed_calls:
        return reply.malformed_calls[0].text
    bare = re.search(r"<tool_call>(.*?)(?:</tool_call>|$)", reply.content, re.DOTALL)
    return bare[1] if bare else None


def _select_tools(names: Sequence[str]) -> Tool:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {
            "tools": {"type": "array", "items": {"enum": list(names)}, "minItems": 1, "maxItems": len(names)}
        },
        "required": ["tools"],
        "additionalProperties": False,
    }
    return Tool(SELECT_TOOLS, schema, "Choose the tools that the request needs, the most useful one first.")


def _document(entry: CatalogueTool, max_chars: int) -> str:
    """A tool as a search shows it, its description cut."""
    properties = (
        entry.tool.parameters.get("properties") if not isinstance(entry.tool.parameters, bool) else None
    )
    parameters = ", ".join(properties) if isinstance(properties, dict) else ""
    left = max(0, max_chars - len(entry.tool.name) - len(parameters))
    description = entry.tool.description
    cut = description if len(description) <= left else description[:left] + "..."
    return json.dumps(
        {"name": entry.tool.name, "description": cut, "parameters": parameters[:max_chars]},
        ensure_ascii=False,
    )
