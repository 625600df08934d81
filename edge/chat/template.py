"""Messages and tools to prompt text, by a Jinja chat template in a sandbox.

The environment is the one that transformers gives templates (trimmed blocks, `tojson` without ASCII escapes or
HTML escapes, `raise_exception`, `strftime_now`, loop controls), so that a template renders here to the text that
the model was trained on.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias

from edge.chat.messages import normalize_messages
from edge.errors import TemplateError
from edge.types import Tool

if TYPE_CHECKING:
    from jinja2 import Template

ToolFormat: TypeAlias = Literal["hermes", "xml", "none"]
_MAX_TEMPLATE_CHARS = 200_000
_MAX_PROMPT_CHARS = 16_000_000


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template's text and where it came from, for messages and `--json`."""

    source: str
    origin: str

    @property
    def tool_format(self) -> ToolFormat:
        """How this template tells the model to write a call, read off its text."""
        if "tools" not in self.source:
            return "none"
        if "<function=" in self.source and "<parameter=" in self.source:
            return "xml"
        return "hermes" if "<tool_call>" in self.source else "none"


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """Prompt text. opens_thinking: it ends inside `<think>`, so the answer begins with thinking."""

    text: str
    opens_thinking: bool


def hermes_template(default_system: str = "") -> ChatTemplate:
    """ChatML with Hermes tools: for models trained on that form whose own template does not have it.

    default_system: used when the conversation brings no system message.
    """
    source = resources.files("edge.chat").joinpath("templates/hermes.jinja").read_text(encoding="utf-8")
    header = "{%- set default_system = " + json.dumps(default_system) + " -%}\n"
    return ChatTemplate(header + source, "built-in hermes")


def render_prompt(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, object]],
    tools: Sequence[Tool] = (),
    *,
    enable_thinking: bool | None = None,
    opens_answer: bool = True,
) -> RenderedPrompt:
    """The prompt up to where the model's answer begins.

    opens_answer: off, it ends behind the last message and the answer is not begun.
    enable_thinking: passed to templates that know it; None leaves the template's own default.
    Raises RequestError for bad messages, TemplateError when the template fails or refuses them.
    """
    variables: dict[str, object] = {
        "messages": normalize_messages(messages),
        "tools": [tool.to_openai() for tool in tools] or None,
        "add_generation_prompt": opens_answer,
    }
    if enable_thinking is not None:
        variables["enable_thinking"] = enable_thinking
    text = _render(template, variables)
    if len(text) > _MAX_PROMPT_CHARS:
        raise TemplateError(f"the prompt has {len(text)} characters; allowed are {_MAX_PROMPT_CHARS}")
    return RenderedPrompt(text, opens_thinking=_ends_in_thinking(text))


def _ends_in_thinking(text: str) -> bool:
    return text.rstrip().endswith("<think>")


def _render(template: ChatTemplate, variables: Mapping[str, object]) -> str:
    from jinja2 import TemplateError as JinjaError

    try:
        return str(_compile(template.source).render(**variables))
    except JinjaError as exc:
        raise TemplateError(f"the chat template ({template.origin}) failed: {exc}") from exc
    except (
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
        ZeroDivisionError,
    ) as exc:
        # The template's own code ran into this, on values of ours that it did not expect.
        raise TemplateError(
            f"the chat template ({template.origin}) failed: {type(exc).__name__}: {exc}"
        ) from exc


@functools.lru_cache(maxsize=16)
def _compile(source: str) -> Template:
    from jinja2 import TemplateError as JinjaError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if len(source) > _MAX_TEMPLATE_CHARS:
        raise TemplateError(
            f"the chat template has {len(source)} characters; allowed are {_MAX_TEMPLATE_CHARS}"
        )
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(source)
    except JinjaError as exc:
        raise TemplateError(f"the chat template cannot be read: {exc}") from exc


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError as JinjaError

    raise JinjaError(message)


def _strftime_now(fmt: str) -> str:
    return datetime.now().strftime(fmt)
