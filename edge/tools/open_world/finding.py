"""Phase 1: the model searches for tools and chooses some. How steps are written and tools run is not known here.

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
from edge.tools.open_world.dialects import Choice, Dialect, Search, dialect_of
from edge.tools.open_world.profile import OpenWorldProfile, fill
from edge.tools.retrieval.catalogue import CatalogueTool
from edge.types import Event, Message, Reply

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
    return _Finding(engine, request, question, searcher, profile, dialect_of(profile)).events()


@dataclass(slots=True)
class _Finding:
    engine: ChatEngine
    request: ChatRequest
    question: str
    searcher: Searcher
    profile: OpenWorldProfile
    dialect: Dialect
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
            event = self._take(reply)
            if event is not None:
                yield event
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
        may_search = self.n_rounds < self.profile.max_rounds
        while True:
            base = replace(self.request, messages=tuple(self.messages))
            try:
                stream = self.engine.stream(
                    self.dialect.request(base, list(self.found), may_search=may_search)
                )
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
            if message["role"] in ("user", "tool") and opening in text and '{"name"' in text:
                names = re.findall(r'\{"name": ("(?:[^"\\]|\\.)*")', text)
                short = self._information("\n".join(json.loads(name) for name in names))
                self.messages[at] = {**message, "content": short}
                return True
        return False

    def _take(self, reply: Reply) -> FindingEvent | None:
        """Does what the step says, and tells the model what came of it."""
        prompts, names = self.profile.prompts, ", ".join(self.found)
        self.messages.append(self.dialect.said(reply))
        match self.dialect.read(reply):
            case Search(query) if not query:
                return self._fault(reply, prompts.empty_query)
            case Search() if self.n_rounds >= self.profile.max_rounds:
                return self._fault(reply, fill(prompts.no_rounds_left, names=names))
            case Search(query):
                return self._search(reply, query)
            case Choice() if not self.found:
                return self._fault(reply, prompts.nothing_found_yet)
            case Choice(chosen) if chosen:
                self.chosen = tuple(self.found[name] for name in chosen if name in self.found)
                unknown = fill(prompts.unknown_tools, unknown=", ".join(chosen), names=names)
                return None if self.chosen else self._fault(reply, unknown)
            case _:
                return self._fault(reply, prompts.invalid_action)

    def _search(self, reply: Reply, query: str) -> Searched:
        prompts = self.profile.prompts
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
        self.messages.append(self.dialect.told(reply, text))
        return Searched(query, tuple(hit.id for hit in hits))

    def _information(self, text: str) -> str:
        opening, closing = self.profile.tags.information
        return f"{opening}\n{text}\n{closing}"

    def _fault(self, reply: Reply, why: str) -> Faulted:
        self.n_faults += 1
        self.messages.append(self.dialect.told(reply, why))
        return Faulted(reply.content, why)


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
