"""What the written training material is made of: tools with requests for them, and whole dialogues.

The files' format is described in data/README.md and read by `reading.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft7Validator

from demo.slots import MaterialError

SCENARIOS = (
    "multi_tool_parallel",
    "multi_tool_sequential",
    "no_tool_needed",
    "single_tool",
    "error_recovery",
    "reasoning_heavy",
    "complex_multi_step",
)
Args = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A user's sentence and the calls that are right: each a tool's name and argument templates."""

    ask: str
    calls: tuple[tuple[str, Args], ...]


@dataclass(frozen=True, slots=True)
class WrittenTool:
    """A tool with its requests.

    rename: other names for a parameter. also_described: other descriptions. sometimes: parameters that only half of the
    groups show; "drop" leaves the argument out where it is hidden, "show" leaves the request out. lists: parameters
    that may also be a list. codes: parameters that hold a language's name or, described otherwise, its code.
    file: the stem of the file that it is from; tools of one file are of one field.
    """

    name: str
    description: str
    properties: Mapping[str, Mapping[str, Any]]
    required: tuple[str, ...]
    values: Mapping[str, Any]
    requests: tuple[Request, ...]
    many: tuple[Request, ...]
    result: str | None
    say: str | None
    rename: Mapping[str, Sequence[str]]
    also_described: tuple[str, ...]
    sometimes: Mapping[str, str]
    lists: tuple[str, ...]
    codes: Mapping[str, Sequence[Mapping[str, str]]]
    file: str
    validator: Draft7Validator = field(repr=False, compare=False)

    @property
    def is_core(self) -> bool:
        """One of the 15 tools of the model card."""
        return self.file.startswith("core_tools_")

    def check(self, arguments: object) -> None:
        """Raises MaterialError where the written schema refuses the arguments."""
        for error in self.validator.iter_errors(arguments):
            place = "/".join(map(str, error.absolute_path))
            raise MaterialError(f"{self.name}: {place} {error.message[:150]}")


@dataclass(frozen=True, slots=True)
class Turn:
    """One step: user, call (name and argument templates), result or say."""

    kind: str
    text: str = ""
    calls: tuple[tuple[str, Args], ...] = ()
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dialog:
    """A written dialogue. tools: those that it needs."""

    scenario: str
    turns: tuple[Turn, ...]
    tools: tuple[str, ...]
    system: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """A deployment: system text with house rules, tools, and conversations under it. has_date: whether it is to state
    today's date."""

    system: str
    tools: tuple[str, ...]
    dialogs: tuple[Dialog, ...]
    has_date: bool
    file: str


@dataclass(frozen=True, slots=True)
class Material:
    """All of it."""

    tools: Mapping[str, WrittenTool]
    no_tool: tuple[Dialog, ...]
    dialogs: tuple[Dialog, ...]
    settings: tuple[Setting, ...] = ()
