"""The tools' configuration file, TOML or JSON: limits of the built-in tools, services, own command and HTTP tools.

Unknown keys are refused. Texts in `env`, `headers`, `query` and `url` may hold `${NAME}`, an environment variable, so
that no secret stands in the file and none reaches the model.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.errors import ToolsError
from edge.tools.executable import Effect
from edge.tools.policy import first_fault

ServiceName = Literal["web_search", "get_weather", "translate"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Action(_Section):
    """How a tool or a service does its work: a command (a list, never a shell text) or an HTTP request.

    `{name}` in a text is the argument of that name. A list within command is left out when an argument in it is not
    given. result: the place in a JSON answer, like `data.0.text`.
    """

    command: tuple[str | tuple[str, ...], ...] | None = None
    stdin: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    sandbox: bool = False
    url: str | None = None
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    query: dict[str, str] = Field(default_factory=dict)
    json_body: object = Field(default=None, alias="json")
    body: str | None = None
    result: str | None = None
    timeout_s: float = Field(default=30.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _one_way(self) -> Action:
        if (self.command is None) == (self.url is None):
            raise ValueError("exactly one of command and url is needed")
        if self.command is not None and (not self.command or not isinstance(self.command[0], str)):
            raise ValueError("command is a list that begins with the program")
        if self.json_body is not None and self.body is not None:
            raise ValueError("json and body are both given")
        return self


def _no_parameters() -> dict[str, object]:
    return {"type": "object", "properties": {}}


class DeclaredTool(Action):
    """A tool of the user's own."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    description: str = ""
    parameters: dict[str, object] = Field(default_factory=_no_parameters)
    effects: tuple[Effect, ...] | None = None


class Sandbox(_Section):
    """Limits of execute_python and shell_command."""

    time_s: float = Field(default=30.0, gt=0, le=3600)
    memory_mb: int = Field(default=512, ge=16)
    file_mb: int = Field(default=64, ge=1)
    disk_mb: int = Field(default=512, ge=1)
    n_processes: int = Field(default=64, ge=4)
    network: bool = False
    write: bool = True


class Http(_Section):
    """Limits of http_request, get_webpage and services."""

    timeout_s: float = Field(default=20.0, gt=0, le=600)
    max_bytes: int = Field(default=2_000_000, ge=1000)
    max_redirects: int = Field(default=5, ge=0, le=20)
    allow_private: tuple[str, ...] = ()


class Database(_Section):
    """default: path in the workspace, for calls that name no database."""

    default: str | None = None
    writable: bool = False


class Email(_Section):
    """An SMTP server, or a folder of the workspace that mail is put into."""

    sender: str | None = None
    outbox: str | None = None
    host: str | None = None
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_env: str | None = None


class ToolsConfig(_Section):
    """Everything; the defaults need no file. builtin: which of the built-in tools, None for all."""

    workspace: str | None = None
    builtin: tuple[str, ...] | None = None
    sandbox: Sandbox = Sandbox()
    http: Http = Http()
    database: Database = Database()
    email: Email = Email()
    calendar: str = "calendar.ics"
    service: dict[ServiceName, Action] = Field(default_factory=dict)
    tool: tuple[DeclaredTool, ...] = ()
    python: tuple[str, ...] = ()


def read_config(path: Path, environment: Mapping[str, str] = os.environ) -> ToolsConfig:
    """The configuration of a file; relative folders in it are below the file's folder.

    Raises ToolsError naming the file and what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(data, dict):
            raise ToolsError(f"the tools file {path} is not an object")
        config = ToolsConfig.model_validate(_expanded(data, environment, path))
    except OSError as exc:
        raise ToolsError(f"the tools file {path} cannot be read: {exc.strerror}") from None
    except ValidationError as exc:
        raise ToolsError(f"the tools file {path}: {first_fault(exc)}") from None
    except (ValueError, RecursionError) as exc:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ToolsError(f"the tools file {path} is not {kind}: {exc}") from None
    if config.workspace is not None:
        folder = str(path.parent / Path(config.workspace).expanduser())
        config = config.model_copy(update={"workspace": folder})
    files = tuple(str(path.parent / Path(file).expanduser()) for file in config.python)
    return config.model_copy(update={"python": files})


def _expanded(data: dict[str, object], environment: Mapping[str, str], path: Path) -> dict[str, object]:
    """The data with `${NAME}` replaced in env, headers and url of tools and services."""
    services = data.get("service")
    tools = data.get("tool")
    owners = [
        *(services.values() if isinstance(services, dict) else ()),
        *(tools if isinstance(tools, list) else ()),
    ]
    for owner in owners:
        if not isinstance(owner, dict):
            continue
        if isinstance(owner.get("url"), str):
            owner["url"] = expand(owner["url"], environment, str(path))
        for key in ("env", "headers", "query"):
            if isinstance(owner.get(key), dict):
                owner[key] = {
                    name: expand(value, environment, str(path)) if isinstance(value, str) else value
                    for name, value in owner[key].items()
                }
    return data


def expand(text: str, environment: Mapping[str, str], where: str) -> str:
    """The text with `${NAME}` replaced. Raises ToolsError for a variable that is not set."""
    pieces = text.split("${")
    for index in range(1, len(pieces)):
        name, closed, rest = pieces[index].partition("}")
        if not closed or name not in environment:
            raise ToolsError(f"{where}: the environment variable {name!r} is not set")
        pieces[index] = environment[name] + rest
    return "".join(pieces)
