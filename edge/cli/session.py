"""What `run` has settled before the first answer: the engine, the tools, the options; and JSON of a reply."""

from __future__ import annotations

import dataclasses
import logging
import logging.handlers
import secrets
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import RequestError
from edge.types import Message, Reply, Tool

if TYPE_CHECKING:
    from edge.engine.engine import Engine
    from edge.engine.request import ChatRequest
    from profiles.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a conversation; `/set` changes them."""

    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    system: str | None = None
    max_tokens: int = 512
    temperature: float | None = None
    seed: int = field(default_factory=lambda: secrets.randbelow(1 << 31))
    grammar: bool = True
    think: bool | None = None

    def request(self, messages: list[Message]) -> ChatRequest:
        """A request for the next answer; the system text goes first."""
        from edge.engine.request import ChatRequest
        from edge.engine.sampling import SamplingOptions

        head: list[Message] = [{"role": "system", "content": self.system}] if self.system is not None else []
        return ChatRequest(
            messages=head + messages,
            tools=self.tools,
            tool_choice=self.tool_choice,
            max_tokens=self.max_tokens,
            sampling=SamplingOptions(temperature=self.temperature, seed=self.seed),
            grammar=self.grammar,
            enable_thinking=self.think,
        )

    def with_tools(self, path: Path) -> Settings:
        """The same with the tools of a file."""
        from edge.grammar import read_tools

        return replace(self, tools=read_tools(path))


def reply_document(reply: Reply, engine: Engine, settings: Settings, plan: Plan) -> dict[str, object]:
    """The JSON form of a reply that `--json` prints."""
    document = dataclasses.asdict(reply)
    del document["logprobs"], document["timings"]["queue_s"]  # one request alone neither asks nor waits
    temperature = engine.temperature if settings.temperature is None else settings.temperature
    sampling = {"temperature": temperature, "seed": settings.seed, "max_tokens": settings.max_tokens}
    return document | {"model": engine.facts, "plan": plan.document() | {"sampling": sampling}}


def set_up_logging(verbose: bool) -> None:
    """llama.cpp's log: to standard error with --verbose, otherwise to llama.log in the user's log folder."""
    root = logging.getLogger("edge")
    root.propagate = False
    handler = logging.StreamHandler(sys.stderr) if verbose else _log_file()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    close_logging()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)


def close_logging() -> None:
    """Closes the log that `set_up_logging` opened."""
    root = logging.getLogger("edge")
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()


def _log_file() -> logging.Handler:
    import platformdirs

    folder = Path(platformdirs.user_log_dir("smoltools-edge"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return logging.handlers.RotatingFileHandler(folder / "llama.log", maxBytes=1 << 20, backupCount=1)
    except OSError:  # a read-only home must not keep the program from answering
        return logging.NullHandler()


def check_prompt(prompt: str) -> str:
    """The prompt, unless there is nothing in it."""
    if not prompt.strip():
        raise RequestError("the prompt is empty; give it as an argument or on standard input")
    return prompt
