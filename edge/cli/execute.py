"""`run --execute`: the tools, the policy, the question whether a call may run, and how a run is shown."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from edge.cli.progress import tell
from edge.cli.session import Settings, reply_document
from edge.errors import RequestError
from edge.types import Message, Reply, Tool, ToolCall

if TYPE_CHECKING:
    from edge.cli.render import PlainRenderer, TerminalRenderer
    from edge.engine.engine import Engine
    from edge.tools.agent import AgentDone, AgentEvent, AgentOptions, Answer, ChatEngine, ToolFinished
    from edge.tools.executable import ExecutableTool
    from edge.tools.policy import Policy
    from edge.tools.toolbox import Toolbox
    from profiles.plan import Plan

_SHOWN_LINES, _SHOWN_CHARS = 20, 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteOptions:
    """The flags that go with --execute."""

    workspace: Path | None = None
    config: Path | None = None
    builtin: str | None = None
    mcp: Path | None = None
    policy: Path | None = None
    yes: bool = False
    max_steps: int | None = None
    transcript: Path | None = None
    top_k: int | None = None
    tool_budget: int | None = None

    def given(self) -> list[str]:
        """The flags that are given."""
        names = {
            "--workspace": self.workspace, "--tool-config": self.config, "--builtin": self.builtin, "--mcp": self.mcp,
            "--policy": self.policy, "--yes": self.yes, "--max-steps": self.max_steps, "--transcript": self.transcript,
        }  # fmt: skip
        return [name for name, value in names.items() if value]


def check_flags(options: ExecuteOptions, *, execute: bool, catalog: Path | None, open_world: bool) -> None:
    """Raises RequestError for flags that make no sense together."""
    if not execute and (given := options.given()):
        raise RequestError(f"{given[0]} is given without --execute; add it, or leave {given[0]} out")
    if execute and open_world:
        raise RequestError("--open-world and --execute are two ways to use tools; leave one out")
    if execute and catalog is not None:
        raise RequestError("--catalog offers tools that nothing executes; leave it or --execute out")


def run_executing(
    engine: Engine, settings: Settings, flags: ExecuteOptions, text: str | None, plan: Plan | None
) -> None:
    """`run --execute`. text: the question, None for a conversation. plan: for --json, otherwise None."""
    from edge.cli.render import make_renderer

    may_ask = can_ask() and plan is None
    with open_agent(engine, flags, settings.tools, may_ask=may_ask) as agent:
        settings = replace(settings, tools=agent.toolbox.tools)
        if text is None:
            from edge.cli.repl import converse

            converse(engine, settings, agent=agent)
            return
        events = agent.run([{"role": "user", "content": text}], settings)
        if plan is None:
            if show_run(events, make_renderer()).reason == "interrupted":
                raise KeyboardInterrupt
            return
        reply, more = run_document(events)
        if reply is None or more["stop_reason"] == "interrupted":
            raise KeyboardInterrupt
        document = reply_document(reply, engine, settings, plan) | more
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


@dataclass(slots=True)
class Agent:
    """What runs conversations with tools: `run` answers the last message of a conversation."""

    engine: ChatEngine
    toolbox: Toolbox
    policy: Policy
    options: AgentOptions
    transcript: Path | None

    def run(self, messages: list[Message], settings: Settings) -> Generator[AgentEvent, None, None]:
        """The events of one run. messages grows, without the system text."""
        from edge.tools.agent import run_agent
        from edge.tools.transcript import recorded

        head: list[Message] = [{"role": "system", "content": settings.system}] if settings.system else []
        conversation = head + messages
        options = replace(self.options, request=settings.request([]))
        events = run_agent(self.engine, conversation, self.toolbox, self.policy, options)
        try:
            yield from recorded(events, self.transcript) if self.transcript else events
        finally:
            events.close()  # type: ignore[attr-defined]  # a generator
            messages[:] = conversation[len(head) :]


@contextmanager
def open_agent(
    engine: Engine, options: ExecuteOptions, tools: tuple[Tool, ...], *, may_ask: bool
) -> Iterator[Agent]:
    """The agent of a `run --execute`. tools: of --tools; these alone are offered then."""
    from edge.tools.agent import DEFAULT_MAX_STEPS, AgentOptions
    from edge.tools.policy import Policy, read_policy
    from edge.tools.setup import ToolboxOptions, open_toolbox

    policy = (
        read_policy(options.policy, assume_yes=options.yes)
        if options.policy
        else Policy(assume_yes=options.yes)
    )
    names = (
        None if options.builtin is None else tuple(n.strip() for n in options.builtin.split(",") if n.strip())
    )
    with _mcp_log() as log:
        found = open_toolbox(
            ToolboxOptions(
                config=options.config,
                workspace=options.workspace,
                builtin=() if names == ("none",) else names,
                mcp=options.mcp,
                mcp_log=log,
            )
        )
        with found:
            for note in found.notes:
                tell(note)
            agent_options = AgentOptions(
                approve=ask_at_terminal if may_ask else None, max_steps=options.max_steps or DEFAULT_MAX_STEPS
            )
            toolbox = _chosen(found, tools)
            yield Agent(
                _offering(engine, toolbox, options), toolbox, policy, agent_options, options.transcript
            )


def _offering(engine: Engine, toolbox: Toolbox, options: ExecuteOptions) -> ChatEngine:
    """The engine; with --top-k one that offers each conversation the tools that fit it."""
    if options.top_k is None:
        return engine
    from edge.cli.catalog import make_offer
    from edge.tools.retrieval.catalogue import CatalogueTool
    from edge.tools.retrieval.index import ToolIndex
    from edge.tools.retrieval.offer import OfferingEngine

    index = ToolIndex.in_memory([CatalogueTool(tool.name, tool.tool, tool.source) for tool in toolbox])
    return OfferingEngine(engine, make_offer(index, engine, k=options.top_k, budget=options.tool_budget))


@contextmanager
def _mcp_log() -> Iterator[TextIO | None]:
    """What MCP servers write beside their protocol; None where it cannot be kept."""
    import platformdirs

    folder = Path(platformdirs.user_log_dir("smoltools-edge"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "mcp.log").open("w", encoding="utf-8")
    except OSError:
        yield None
        return
    with file:
        yield file


def _chosen(toolbox: Toolbox, tools: tuple[Tool, ...]) -> Toolbox:
    if not tools:
        return toolbox
    for tool in tools:
        if toolbox.get(tool.name) is None:
            names = ", ".join(t.name for t in toolbox)
            raise RequestError(
                f"--tools names {tool.name!r}, which nothing here executes; there are: {names}. "
                "Own tools are declared in a --tool-config file"
            )
    return toolbox.only(tool.name for tool in tools)


def can_ask() -> bool:
    """There is a person at a terminal, who is not busy giving us the prompt."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def approval_text(call: ToolCall, tool: ExecutableTool) -> str:
    """What the user decides about: the tool, where it comes from, what it can do, and the very arguments.

    Invisible and control characters come as escapes; tool output cannot look like this, as each of its lines is marked.
    """
    from edge.tools.text import shown_exactly

    effects = ", ".join(sorted(tool.effects)) or "nothing"
    return (
        f"\n? {shown_exactly(call.name)} of {shown_exactly(tool.source)} wants to run (it can: {effects}) with\n"
        f"  {shown_exactly(call.arguments)}\n"
    )


def ask_at_terminal(call: ToolCall, tool: ExecutableTool) -> Answer:
    """Asks until the answer is one. The end of the input is a no."""
    _forget_typed()
    sys.stderr.write(approval_text(call, tool))
    while True:
        sys.stderr.write("? allow it? [y]es, [n]o, [a]lways this tool: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return "no"
        match line.strip().lower():
            case "y" | "yes":
                return "yes"
            case "n" | "no":
                return "no"
            case "a" | "always":
                return "always"


def _forget_typed() -> None:
    """What was typed before the question was shown is no answer to it."""
    import termios

    try:
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    except (termios.error, OSError, ValueError):
        return  # no terminal


def show_run(events: Iterator[AgentEvent], renderer: PlainRenderer | TerminalRenderer) -> AgentDone:
    """Shows a run to its end: the answer on standard output, what the tools do on standard error."""
    from edge.cli.render import PlainRenderer
    from edge.tools.agent import AgentDone, AgentStarted, ToolFinished, ToolProgress, ToolStarted
    from edge.tools.text import shown_exactly

    for event in events:
        match event:
            case AgentDone():
                _note_reason(event)
                return event
            case ToolCall() if isinstance(renderer, PlainRenderer):
                tell(_marked(f"call {shown_exactly(event.name)} {shown_exactly(event.arguments)}"))
            case ToolProgress(call, text):
                tell(_marked(f"{call.name}: {text}"))
            case ToolFinished():
                tell(result_text(event))
            case AgentStarted() | ToolStarted():
                pass
            case _:
                renderer.show(event)
    raise AssertionError("a run ends with AgentDone")


def _note_reason(done: AgentDone) -> None:
    notes = {
        "step_limit": f"stopped after {done.n_steps} steps (--max-steps)",
        "repeated_call": "stopped: the model repeated a call",
        "length": "stopped at max_tokens or n_ctx",
        "interrupted": "stopped",
    }
    if done.reason in notes:
        tell(f"({notes[done.reason]})")


def result_text(event: ToolFinished) -> str:
    """A result as it is shown: every line marked, so that none can pass for a question or for the program."""
    text = event.result.text[:_SHOWN_CHARS]
    lines = text.split("\n")[:_SHOWN_LINES]
    shown = "\n".join(lines)
    if len(shown) < len(event.result.text):
        shown += f"\n… {len(event.result.text)} characters in all"
    state = "failed" if event.result.is_error else "gave"
    return _marked(f"{event.call.name} {state}:\n{shown}")


def _marked(text: str) -> str:
    """The text with a bar before every line as the terminal breaks it."""
    from edge.cli.render import printable

    pieces = [piece for line in text.split("\n") for piece in _broken(printable(line))]
    return "\n".join(f"│ {piece}" for piece in pieces)


def _broken(line: str) -> list[str]:
    """A line in pieces that the terminal does not break again."""
    width = max(20, shutil.get_terminal_size().columns - 4)
    if not sys.stderr.isatty():
        return [line]
    if not line.isascii():
        width //= 2  # a character may take two columns
    return [line[at : at + width] for at in range(0, len(line), width)] or [""]


def run_document(events: Iterator[AgentEvent]) -> tuple[Reply | None, dict[str, object]]:
    """The last answer, and what --json adds to it: the steps and why the run ended."""
    from edge.tools.agent import AgentDone, ToolFinished

    steps: list[dict[str, object]] = []
    for event in events:
        if isinstance(event, ToolFinished):
            result = {"text": event.result.text, "is_error": event.result.is_error, "cut": event.result.cut}
            call = {"id": event.call.id, "name": event.call.name, "arguments": event.call.arguments}
            steps.append(
                {
                    "call": call,
                    "result": result,
                    "executed": event.started,
                    "seconds": round(event.seconds, 3),
                }
            )
        elif isinstance(event, AgentDone):
            return event.reply, {
                "executed_calls": steps,
                "stop_reason": event.reason,
                "n_steps": event.n_steps,
            }
    raise AssertionError("a run ends with AgentDone")
