"""May a call run: allow, ask or deny, by tool, source and argument. Reads a TOML file; asks nobody itself.

    default = "ask"              # for tools that write, send or execute; others are allowed

    [[rule]]
    tool = "write_file"          # glob over names; source = "mcp:git" names where a tool comes from
    arguments = { path = "notes/*" }          # globs; all must match. regex = { ... } are regular expressions
    action = "allow"

A deny rule that matches wins wherever it stands; otherwise the first rule that matches decides.
"""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edge.errors import ToolsError
from edge.tools.executable import ASKED_EFFECTS, Arguments, ExecutableTool

Action: TypeAlias = Literal["allow", "ask", "deny"]


class Rule(BaseModel):
    """One rule of a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Action
    tool: str = "*"
    source: str = "*"
    arguments: dict[str, str] = Field(default_factory=dict)
    regex: dict[str, str] = Field(default_factory=dict)

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: dict[str, str]) -> dict[str, str]:
        for name, pattern in value.items():
            try:
                re.compile(pattern)
            except re.error as exc:
                raise ValueError(f"{name}: {pattern!r} is no regular expression: {exc}") from None
        return value

    def matches(self, tool: ExecutableTool, arguments: Arguments) -> bool:
        """The rule speaks about this call. An argument that is not given matches nothing."""
        if not (fnmatchcase(tool.name, self.tool) and fnmatchcase(tool.source, self.source)):
            return False
        texts = {name: _text(value) for name, value in arguments.items()}
        globs = all(name in texts and fnmatchcase(texts[name], glob) for name, glob in self.arguments.items())
        return globs and all(
            name in texts and re.fullmatch(pattern, texts[name]) for name, pattern in self.regex.items()
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Policy(BaseModel):
    """Rules, and what holds where none speaks. assume_yes turns every ask into allow; deny stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: Action = "ask"
    rule: tuple[Rule, ...] = ()
    assume_yes: bool = Field(default=False, exclude=True)

    def decide(self, tool: ExecutableTool, arguments: Arguments) -> tuple[Action, str]:
        """The action for a call, and why."""
        seen = tool.normalize(arguments) if tool.normalize else arguments
        matching = [(n, rule) for n, rule in enumerate(self.rule, 1) if rule.matches(tool, seen)]
        denied = [(n, rule) for n, rule in matching if rule.action == "deny"]
        action, why = self._default(tool)
        if denied or matching:
            n, rule = (denied or matching)[0]
            action, why = rule.action, f"rule {n} of the policy"
        if action == "ask" and self.assume_yes:
            return "allow", "--yes"
        return action, why

    def _default(self, tool: ExecutableTool) -> tuple[Action, str]:
        asked = sorted(tool.effects & ASKED_EFFECTS)
        if not asked:
            return "allow", "it changes nothing"
        return self.default, f"the default for tools that {' and '.join(asked)}"


def read_policy(path: Path, *, assume_yes: bool = False) -> Policy:
    """The policy of a TOML file. Raises ToolsError naming the file and what is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        if "assume_yes" in data:
            raise ToolsError(f"the policy {path}: assume_yes cannot stand in a file; use --yes")
        return Policy(**data, assume_yes=assume_yes)
    except OSError as exc:
        raise ToolsError(f"the policy {path} cannot be read: {exc.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ToolsError(f"the policy {path} is not TOML: {exc}") from None
    except ValidationError as exc:
        raise ToolsError(f"the policy {path}: {first_fault(exc)}") from None


def first_fault(exc: ValidationError) -> str:
    """What pydantic found first, in one line: where and what."""
    error = exc.errors(include_url=False)[0]
    where = ".".join(str(step) for step in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ").replace("\n", " ")
    return f"{where}: {message}" if where else message
