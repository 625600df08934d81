"""Reads a list of tools, decoded JSON or a file of it, into `Tool` values. Schemas are `compile`'s matter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.errors import ToolsError
from edge.types import Schema, Tool

ALLOWED = 'an object like {"type": "function", "function": {"name": ..., "parameters": {...}}}'
# Thousands of tools are a few MB; a model file that was named by mistake is not read into memory.
_MAX_FILE_MIB = 64


def read_tools(path: Path) -> tuple[Tool, ...]:
    """The tools of a JSON file. Raises ToolsError naming the file."""
    try:
        with path.open("rb") as file:
            data = file.read((_MAX_FILE_MIB << 20) + 1)
        if len(data) > _MAX_FILE_MIB << 20:
            raise ToolsError(f"it is larger than {_MAX_FILE_MIB} MiB; a list of OpenAI-style tools is needed")
        return parse_tools(json.loads(data.decode("utf-8-sig")))
    except OSError as exc:
        raise ToolsError(f"the tools file {path} cannot be read: {exc.strerror or exc}") from None
    except (ValueError, RecursionError) as exc:
        raise ToolsError(
            f"the tools file {path} is not JSON: {exc}; a list of OpenAI-style tools is needed"
        ) from None
    except ToolsError as exc:
        raise ToolsError(f"the tools file {path}: {exc}") from None


def parse_tools(value: object) -> tuple[Tool, ...]:
    """The tools of a decoded JSON list, OpenAI style or bare `{name, description, parameters}`.

    A tool without `parameters` takes no arguments.
    Raises ToolsError naming the index, what was found and what is allowed.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ToolsError(f"tools must be a JSON list, not {_kind(value)}")
    tools = tuple(_tool(index, entry) for index, entry in enumerate(value))
    first: dict[str, int] = {}
    for index, tool in enumerate(tools):
        if first.setdefault(tool.name, index) != index:
            raise ToolsError(
                f"tools[{index}] is called {tool.name!r} like tools[{first[tool.name]}]; names must differ"
            )
    return tools


def _tool(index: int, entry: object) -> Tool:
    where = f"tools[{index}]"
    if not isinstance(entry, Mapping):
        raise ToolsError(f"{where} is {_kind(entry)}; a tool is {ALLOWED}")
    kind = entry.get("type", "function")
    if "function" not in entry and "name" not in entry:
        raise ToolsError(f"{where} has no 'function' and no 'name'; a tool is {ALLOWED}")
    if "function" in entry and kind != "function":
        raise ToolsError(f"{where}.type is {kind!r}; only 'function' is allowed")
    function = entry.get("function", entry)
    if not isinstance(function, Mapping):
        raise ToolsError(f"{where}.function is {_kind(function)}; a tool is {ALLOWED}")
    return Tool(_name(where, function), _parameters(where, function), _description(where, function))


def _name(where: str, function: Mapping[str, object]) -> str:
    name = function.get("name")
    if name is None:
        raise ToolsError(f"{where} has no name; a non-empty string is needed")
    if not isinstance(name, str):
        raise ToolsError(f"{where}.name is {_kind(name)}; a non-empty string is needed")
    if not name.strip():
        raise ToolsError(f"{where}.name is {name!r}; a non-empty string is needed")
    bad = next((char for char in name if not _is_allowed(char)), None)
    if bad is not None:
        raise ToolsError(
            f"{where}.name {name!r} holds U+{ord(bad):04X}; control characters are not allowed in names"
        )
    return name


def _is_allowed(char: str) -> bool:
    return not (ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) <= 0xDFFF)


def _parameters(where: str, function: Mapping[str, object]) -> Schema:
    parameters = function.get("parameters")
    if parameters is None:
        return {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping | bool):
        raise ToolsError(
            f"{where}.parameters is {_kind(parameters)}; a JSON Schema, an object or a boolean, is needed"
        )
    return parameters


def _description(where: str, function: Mapping[str, object]) -> str:
    description = function.get("description")
    if description is None:
        return ""
    if not isinstance(description, str):
        raise ToolsError(f"{where}.description is {_kind(description)}; a string is needed")
    return description


def _kind(value: object) -> str:
    """What JSON calls the value, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence):
        return "a list"
    return f"a {type(value).__name__}"
