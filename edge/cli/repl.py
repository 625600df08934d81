"""The conversation at a terminal: history, several lines, commands; Ctrl-C stops the answer and not the program."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cli.render import TerminalRenderer, printable
from edge.cli.session import Settings
from edge.errors import EdgeError, RequestError
from edge.types import ContentDelta, Event, Message, Reply, ToolCall

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from rich.console import Console

    from edge.cli.execute import Agent
    from edge.engine.engine import Engine
    from edge.engine.request import ChatRequest
    from edge.tools.retrieval.offer import ToolOffer

HELP = '''\
  /set NAME VALUE   temperature, max_tokens, seed, system, tool_choice, grammar (on, off), think (on, off)
  /set              show the settings
  /tools            list the tools          /tools FILE   take the tools of a JSON file
  /clear            forget the conversation /help         this text
  /bye              leave (Ctrl-D too)      """           begins and ends a text of several lines
  After a call you are asked for its result; an empty line leaves the call unanswered. With --execute it is run.
  Ctrl-C stops the answer, or clears the line.'''


class Leave(Exception):
    """The user wants to go."""


@dataclass(slots=True)
class Conversation:
    """Messages and settings; `handle` takes one input, `say` shows a line, `answer` runs the model."""

    settings: Settings
    say: Callable[[str], None]
    messages: list[Message] = field(default_factory=list)
    offer: ToolOffer | None = None
    executes: bool = False

    def request(self) -> ChatRequest:
        """The request for the next answer, with the catalogue's tools where there is one."""
        request = self.settings.request(self.messages)
        return self.offer.apply(request) if self.offer else request

    def handle(self, text: str) -> bool:
        """Takes an input. True when the model should answer now. Raises Leave, EdgeError."""
        if text.startswith("/"):
            self._command(text)
            return False
        if not text.strip():
            return False
        self.messages.append({"role": "user", "content": text})
        return True

    def _command(self, text: str) -> None:
        name, _, rest = text.strip().partition(" ")
        rest = rest.strip()
        match name:
            case "/bye" | "/exit" | "/quit":
                raise Leave
            case "/help" | "/?":
                self.say(HELP)
            case "/clear":
                self.messages.clear()
                self.say("the conversation is empty")
            case "/tools":
                self._tools(rest)
            case "/set":
                self._set(rest)
            case _:
                raise RequestError(f"there is no command {name}; /help lists them")

    def _tools(self, file: str) -> None:
        if file and self.executes:
            raise RequestError("the tools are executed and stay as they are; start again with other --tools")
        if file:
            self.settings = self.settings.with_tools(Path(shlex.split(file)[0]).expanduser())
        offered = (*self.offer.tools, *self.offer.revealed) if self.offer else ()
        if not self.settings.tools and not offered:
            self.say("no tools; /tools FILE takes those of a JSON file")
        for tool in (*self.settings.tools, *offered):
            self.say(f"{tool.name}  {tool.description}")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name:
            self.settings = changed(self.settings, name, value.strip())
        for key in [name] if name else SETTINGS:
            self.say(f"{key} = {getattr(self.settings, key)!r}")

    def remember(self, reply: Reply) -> None:
        """Puts a finished answer into the history, as the model would be shown it."""
        message: dict[str, object] = {"role": "assistant", "content": reply.content}
        if reply.tool_calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in reply.tool_calls
            ]
        self.messages.append(message)

    def add_result(self, call: ToolCall, result: str) -> None:
        """Puts a call's result into the history."""
        self.messages.append({"role": "tool", "name": call.name, "tool_call_id": call.id, "content": result})


def _switch(value: str) -> bool:
    if value not in ("on", "off"):
        raise ValueError("on or off")
    return value == "on"


SETTINGS: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "max_tokens": int,
    "seed": int,
    "system": lambda value: value or None,
    "tool_choice": str,
    "grammar": _switch,
    "think": _switch,
}


def changed(settings: Settings, name: str, value: str) -> Settings:
    """The settings with one of them set from text. Raises RequestError and leaves them as they were."""
    if name not in SETTINGS:
        raise RequestError(f"there is no setting {name!r}; allowed are {', '.join(SETTINGS)}")
    try:
        new = replace(settings, **{name: SETTINGS[name](value)})
        from edge.engine.request import check_request

        check_request(new.request([{"role": "user", "content": ""}]))
    except ValueError as exc:
        raise RequestError(f"{name} cannot be {value!r}: {exc}") from None
    return new


def converse(
    engine: Engine, settings: Settings, offer: ToolOffer | None = None, agent: Agent | None = None
) -> None:
    """Talks until the user leaves. agent: runs the calls; without one the user is asked for their results."""
    from rich.console import Console

    console = Console()
    session = _prompt_session()
    if settings.temperature is None:
        settings = replace(settings, temperature=engine.temperature)
    talk = Conversation(
        settings,
        lambda line: console.print(line, markup=False, highlight=False),
        offer=offer,
        executes=agent is not None,
    )
    facts = engine.facts
    console.print(
        f"{facts['name']} {facts['quantization']}, n_ctx {engine.context.plan.n_ctx}. /help for help."
    )
    while True:
        try:
            if not talk.handle(_read(session)):
                continue
            if agent is not None:
                _run(agent, talk, console)
            else:
                _answer(engine, talk, console, session)
        except (Leave, EOFError):
            return
        except KeyboardInterrupt:
            continue
        except EdgeError as exc:
            console.print(f"error: {exc}", style="red", markup=False, highlight=False)


def _answer(engine: Engine, talk: Conversation, console: Console, session: PromptSession[str]) -> None:
    """Answers, and goes on answering while the user gives results for the calls."""
    while True:
        reply = _show(engine, talk, TerminalRenderer(console), console)
        if reply is None or not reply.tool_calls or not _ask_results(reply, talk, session):
            return


def _run(agent: Agent, talk: Conversation, console: Console) -> None:
    """Answers with the agent; what was done stays in the conversation, also when it was stopped."""
    from edge.cli.execute import show_run

    n_before = len(talk.messages)
    events = agent.run(talk.messages, talk.settings)
    try:
        show_run(events, TerminalRenderer(console))
    except KeyboardInterrupt:
        console.print("\n(stopped)", style="yellow")
    except EdgeError:
        if len(talk.messages) == n_before:
            talk.messages.pop()  # the question that could not be answered
        raise
    finally:
        events.close()


def _show(engine: Engine, talk: Conversation, renderer: TerminalRenderer, console: Console) -> Reply | None:
    """Shows one answer and remembers it; None when it was stopped or failed."""
    shown: list[Event] = []
    n_before = len(talk.messages)
    try:
        for event in engine.stream(talk.request()):
            shown.append(event)
            renderer.show(event)
    except KeyboardInterrupt:
        console.print("\n(stopped)", style="yellow")
        text = "".join(event.text for event in shown if isinstance(event, ContentDelta))
        talk.messages.append({"role": "assistant", "content": text})
        return None
    except EdgeError:
        del talk.messages[
            n_before - 1 :
        ]  # the question that could not be answered, so that the next one can be
        raise
    reply = shown[-1]
    assert isinstance(reply, Reply)
    if reply.finish_reason == "length":
        console.print(f"(stopped at max_tokens={talk.settings.max_tokens} or n_ctx)", style="yellow")
    talk.remember(reply)
    return reply


def _ask_results(reply: Reply, talk: Conversation, session: PromptSession[str]) -> bool:
    """Asks for the calls' results; True when every call got one."""
    results = []
    for call in reply.tool_calls:
        try:
            result = session.prompt(f"result of {printable(call.name)}> ").strip()
        except (KeyboardInterrupt, EOFError):
            return False
        if not result:
            return False
        results.append((call, result))
    for call, result in results:
        talk.add_result(call, result)
    return True


def _read(session: PromptSession[str]) -> str:
    """One input; a text that begins with three quotes goes on until three quotes end it."""
    text = session.prompt(">>> ")
    if not text.startswith('"""'):
        return text
    lines = [text[3:]]
    while not lines[-1].rstrip().endswith('"""'):
        lines.append(session.prompt("... "))
    lines[-1] = lines[-1].rstrip()[:-3]
    return "\n".join(lines)


def _prompt_session() -> PromptSession[str]:
    import platformdirs
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    folder = Path(platformdirs.user_state_dir("smoltools-edge"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return PromptSession(history=FileHistory(str(folder / "history")))
    except OSError:
        return PromptSession(history=InMemoryHistory())
