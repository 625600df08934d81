"""`replay`: shows recorded runs again, or how another model does with the recorded results."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import REF_HELP, JsonOption, NCtxOption

if TYPE_CHECKING:
    from edge.engine.engine import Engine
    from edge.tools.agent import AgentEvent
    from edge.tools.transcript import Recording

DIFFERS = 3


def replay_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What --transcript wrote.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="REF", help=f"Run this model against the recorded results. {REF_HELP}"),
    ] = None,
    n_ctx: NCtxOption = None,
    json: JsonOption = False,
) -> None:
    """Play a transcript of `run --execute` again. Nothing is executed.

    Exit code 3: the calls are not the recorded ones.

    Example: smoltools-edge replay run.jsonl
    """
    from edge.tools.transcript import read_transcript

    runs = read_transcript(file)
    if model is None:
        same = _play(runs, None, as_json=json)
    else:
        from edge.cli.plan import open_planned
        from edge.cli.session import set_up_logging
        from profiles.plan import Pins

        set_up_logging(verbose=False)
        engine, _ = open_planned(model, Pins(n_ctx=n_ctx))
        with engine:
            same = _play(runs, engine, as_json=json)
    if not same:
        raise typer.Exit(DIFFERS)


def _play(runs: list[Recording], engine: Engine | None, *, as_json: bool) -> bool:
    """Shows all runs; True when each made the recorded calls."""
    from edge.cli.execute import run_document, show_run
    from edge.cli.progress import tell
    from edge.cli.render import make_renderer, printable
    from edge.tools.transcript import replay

    same = True
    documents: list[dict[str, object]] = []
    for run in runs:
        question = next((m["content"] for m in reversed(run.messages) if m.get("role") == "user"), "")
        made: list[object] = []
        events = _noted_calls(replay(run, engine), made)
        if as_json:
            reply, more = run_document(events)
            documents.append({"question": question, "content": reply.content if reply else ""} | more)
        else:
            tell(f">>> {printable(str(question))}")
            show_run(events, make_renderer())
        wanted = [(call.name, call.arguments) for reply in run.replies for call in reply.tool_calls]
        is_same = made == wanted
        same = same and is_same
        if as_json:
            documents[-1]["same_calls"] = is_same
        elif not is_same:
            tell(f"(the calls differ: {len(wanted)} recorded, {len(made)} now)")
    if as_json:
        sys.stdout.write(json_module.dumps({"runs": documents}, ensure_ascii=False, indent=2) + "\n")
    return same


def _noted_calls(events: Iterator[AgentEvent], made: list[object]) -> Iterator[AgentEvent]:
    """The same events; the calls that are made come into the list."""
    from edge.types import Reply

    for event in events:
        if isinstance(event, Reply):
            made += [(call.name, call.arguments) for call in event.tool_calls]
        yield event
