"""The fifteen built-in tools: schemas and effects from tools.json, functions from the modules beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from edge.errors import ToolsError
from edge.tools.builtin.calculator import calculate
from edge.tools.builtin.calendar import create_calendar_event
from edge.tools.builtin.clock import get_current_datetime
from edge.tools.builtin.database import DatabaseOptions, database_query
from edge.tools.builtin.files import list_directory, read_file, write_file
from edge.tools.builtin.mail import MailOptions, send_email
from edge.tools.builtin.programs import execute_python, shell_command
from edge.tools.builtin.web import get_webpage, http_request
from edge.tools.config import ToolsConfig
from edge.tools.declared import action_function, check_places
from edge.tools.executable import Arguments, CallContext, ExecutableTool, ToolFailure, ToolFunction
from edge.tools.fetch import FetchOptions
from edge.tools.sandbox import SandboxOptions
from edge.tools.workspace import Workspace
from edge.types import Tool

SERVICES = ("web_search", "get_weather", "translate")
_PATHS = {"read_file": "path", "write_file": "path", "list_directory": "path", "database_query": "database"}


def builtin_tools(config: ToolsConfig, workspace: Workspace) -> list[ExecutableTool]:
    """The chosen built-in tools. Raises ToolsError for a name that none has."""
    declared = builtin_schemas()
    chosen = list(declared) if config.builtin is None else list(dict.fromkeys(config.builtin))
    for name in chosen:
        if name not in declared:
            raise ToolsError(f"there is no built-in tool {name!r}; there are: {', '.join(declared)}")
    functions = _functions(config, workspace)
    return [_tool(declared[name], functions[name], config, workspace) for name in chosen]


def builtin_schemas() -> dict[str, dict[str, Any]]:
    """The entries of tools.json by name."""
    text = resources.files(__name__).joinpath("tools.json").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in json.loads(text)}


def fetch_options(config: ToolsConfig) -> FetchOptions:
    """The HTTP limits of a configuration."""
    return FetchOptions(**config.http.model_dump())


def _tool(
    entry: dict[str, Any], function: ToolFunction, config: ToolsConfig, workspace: Workspace
) -> ExecutableTool:
    name, effects = entry["name"], set(entry["effects"])
    if name == "database_query" and config.database.writable:
        effects.add("write")
    return ExecutableTool(
        tool=Tool(name, entry["parameters"], entry["description"]),
        call=function,
        effects=frozenset(effects),
        source="builtin",
        timeout_s=max(entry["timeout_s"], config.sandbox.time_s + 5)
        if "execute" in effects
        else entry["timeout_s"],
        normalize=_normalizer(name, workspace),
    )


def _normalizer(name: str, workspace: Workspace) -> Callable[[Arguments], Arguments] | None:
    if name not in _PATHS:
        return None
    return lambda arguments: workspace.normalize(arguments, _PATHS[name])


def _functions(config: ToolsConfig, workspace: Workspace) -> dict[str, ToolFunction]:
    http = fetch_options(config)
    sandbox = SandboxOptions(**config.sandbox.model_dump())
    database = DatabaseOptions(**config.database.model_dump())
    functions: dict[str, ToolFunction] = {
        "calculate": calculate,
        "get_current_datetime": get_current_datetime,
        "read_file": partial(read_file, workspace),
        "write_file": partial(write_file, workspace),
        "list_directory": partial(list_directory, workspace),
        "database_query": partial(database_query, workspace, database),
        "execute_python": partial(execute_python, workspace, sandbox),
        "shell_command": partial(shell_command, workspace, sandbox),
        "get_webpage": partial(get_webpage, http),
        "http_request": partial(http_request, http),
        "create_calendar_event": partial(create_calendar_event, workspace, config.calendar),
        "send_email": partial(send_email, workspace, MailOptions(**config.email.model_dump())),
    }
    return functions | {name: _service(name, config, workspace.folder, http) for name in SERVICES}


def _service(name: str, config: ToolsConfig, folder: Path, http: FetchOptions) -> ToolFunction:
    action = config.service.get(name)  # type: ignore[call-overload]
    if action is None:
        return partial(_unset, name)
    check_places(action, _parameters(name), f"the service {name}")
    return action_function(action, folder, http)


def _parameters(name: str) -> Iterable[str]:
    properties: dict[str, object] = builtin_schemas()[name]["parameters"]["properties"]
    return properties


def _unset(name: str, arguments: Arguments, context: CallContext) -> str:
    raise ToolFailure(
        f"no service for {name} is configured on this device; answer without it and say so "
        f"(the user can set one in the tools file, [service.{name}])"
    )
