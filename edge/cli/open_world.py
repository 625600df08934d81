"""`run --open-world`: the model finds its tools in the catalogue by itself, then calls them."""

from __future__ import annotations

import dataclasses
import json as json_module
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge.cli.progress import tell
from edge.cli.render import call_line, make_renderer, printable, show_all
from edge.cli.session import reply_document
from edge.errors import RequestError

if TYPE_CHECKING:
    from edge.cli.session import Settings
    from edge.engine.engine import Engine
    from edge.engine.request import ChatRequest
    from edge.tools.open_world.acting import OpenWorldDone, OpenWorldEvent
    from edge.tools.open_world.finding import Chosen
    from edge.tools.open_world.profile import OpenWorldProfile
    from edge.tools.retrieval.index import ToolIndex
    from profiles.plan import Plan


def check_open_world(catalog: Path | None, *, open_world: bool, simulate: bool, profile: str | None) -> None:
    """Raises RequestError for options that go with --open-world alone, or lack a catalogue."""
    if open_world and catalog is None:
        raise RequestError("--open-world searches a catalogue; give one with --catalog FILE")
    if not open_world and (simulate or profile is not None):
        option = "--simulate" if simulate else "--open-world-profile"
        raise RequestError(f"{option} belongs to --open-world, which is not given")


def answer(
    engine: Engine,
    index: ToolIndex,
    question: str,
    settings: Settings,
    profile: OpenWorldProfile,
    plan: Plan,
    *,
    simulate: bool,
    json: bool,
) -> None:
    """Finds tools and prints the calls of the next answer; with simulate, goes on and prints the last answer."""
    if simulate:
        done = simulated_answer(engine, index, question, settings, profile)
        typer.echo(_dumps(done_document(done)) if json else printable(done.answer or f"({done.outcome})"))
        return
    request, chosen = request_with_found_tools(engine, index, question, settings, profile)
    if json:
        document = reply_document(engine.chat(request), engine, settings, plan)
        typer.echo(_dumps(document | {"open_world": chosen_document(chosen)}))
        return
    show_all(engine.stream(request), make_renderer())


def request_with_found_tools(
    engine: Engine, index: ToolIndex, question: str, settings: Settings, profile: OpenWorldProfile
) -> tuple[ChatRequest, Chosen]:
    """The first phase, told on standard error, and the request for the call: with the chosen tools alone."""
    from edge.tools.open_world.evaluate import IndexSearcher
    from edge.tools.open_world.finding import Chosen, find_tools

    base = settings.request([{"role": "user", "content": question}])
    for event in find_tools(engine, base, question, IndexSearcher(index), profile):
        _show(event)
        if isinstance(event, Chosen):
            if not event.tools:
                raise RequestError(
                    f"the model found no tool in {event.n_rounds} searches; try other words, or a larger model"
                )
            tools = (*settings.tools, *(entry.tool for entry in event.tools))
            return dataclasses.replace(base, tools=tools), event
    raise AssertionError("the first phase ends with Chosen")


def simulated_answer(
    engine: Engine, index: ToolIndex, question: str, settings: Settings, profile: OpenWorldProfile
) -> OpenWorldDone:
    """Both phases with tools that only pretend, told on standard error."""
    from edge.tools.agent import AgentOptions
    from edge.tools.open_world.acting import OpenWorldDone, run_open_world
    from edge.tools.open_world.evaluate import IndexSearcher
    from edge.tools.open_world.simulator import Simulator
    from edge.tools.policy import Policy

    simulator = Simulator()
    options = AgentOptions(request=settings.request([{"role": "user", "content": question}]))
    events: Iterator[OpenWorldEvent] = run_open_world(
        engine,
        question,
        IndexSearcher(index),
        lambda entry: simulator.executable(entry.tool),
        Policy(default="allow"),
        profile,
        options=options,
    )
    for event in events:
        _show(event)
        if isinstance(event, OpenWorldDone):
            return event
    raise AssertionError("a run ends with OpenWorldDone")


def done_document(done: OpenWorldDone) -> dict[str, object]:
    """The JSON form of a run."""
    return {
        "outcome": done.outcome,
        "answer": done.answer,
        "calls": [
            {
                "name": made.call.name,
                "arguments": made.call.arguments,
                "result": made.result.text,
                "valid": made.valid,
                "ok": made.ok,
            }
            for made in done.calls
        ],
        "steps": done.n_steps,
        "open_world": chosen_document(done.chosen),
    }


def chosen_document(chosen: Chosen) -> dict[str, object]:
    """The JSON form of a first phase."""
    return {
        "chosen": [tool.id for tool in chosen.tools],
        "how": chosen.how,
        "rounds": chosen.n_rounds,
        "steps": chosen.n_steps,
        "faults": chosen.n_faults,
        "found": list(chosen.found),
    }


def _show(event: object) -> None:
    from edge.tools.agent import ToolFinished, ToolStarted
    from edge.tools.open_world.finding import Chosen, Faulted, Searched

    match event:
        case Searched(query, found):
            tell(printable(f"search: {query}  ({', '.join(found) or 'nothing'})"))
        case Faulted(text, _):
            tell(printable(f"neither search nor choice: {text.strip()[:200]!r}"))
        case Chosen(tools, how):
            tell(printable(f"{how}: {', '.join(tool.id for tool in tools) or 'no tool'}"))
        case ToolStarted(call):
            tell(printable(f"call: {call_line(call)}"))
        case ToolFinished(_, result):
            tell(printable(f"result: {result.text[:200]}"))


def _dumps(document: dict[str, object]) -> str:
    return json_module.dumps(document, ensure_ascii=False, indent=2)
