"""Reads a catalogue of tools: a JSON list, or one JSON object a line. Schemas are not compiled here.

A row is an OpenAI-style tool, or `{"id": ..., "tool": {...}}` with, if known, where the tool comes from:
`server` (or `category`) and `server_description`. Rows of ToolBench's API lists are taken too (see `api_list`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import RetrievalError, ToolsError
from edge.grammar import parse_tools
from edge.tools.retrieval.api_list import is_api, tool_of_api
from edge.types import Tool

ALLOWED_ROW = 'an OpenAI-style tool, or {"id": ..., "tool": {...}}'


@dataclass(frozen=True, slots=True)
class CatalogueTool:
    """One tool of a catalogue. group: the server or category that it belongs to, with its description."""

    id: str
    tool: Tool
    group: str = ""
    group_description: str = ""

    def to_row(self) -> dict[str, object]:
        """The row that `tool_of_row` reads back."""
        return {
            "id": self.id,
            "tool": self.tool.to_openai(),
            "server": self.group,
            "server_description": self.group_description,
        }

    def digest(self) -> bytes:
        """16 bytes that change with anything that is searched or offered."""
        text = json.dumps(self.to_row(), ensure_ascii=False, default=dict)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def read_catalogue(path: Path) -> list[CatalogueTool]:
    """The tools of a file in its order. Raises RetrievalError naming file and line or entry."""
    return parse_catalogue(read_bytes(path, "catalogue"), str(path))


def read_bytes(path: Path, what: str) -> bytes:
    """The file's bytes. Raises RetrievalError naming it."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise RetrievalError(f"the {what} {path} cannot be read: {exc.strerror}") from None


def parse_catalogue(data: bytes, name: str) -> list[CatalogueTool]:
    """The tools of a catalogue's bytes; `name` stands for the file in messages."""
    where = f"the catalogue {name}"
    found: list[CatalogueTool] = []
    seen: dict[str, str] = {}
    for place, value in json_rows(data, where):
        row = tool_of_row(value, place)
        if (first := seen.setdefault(row.id, place)) != place:
            raise RetrievalError(f"{place}: the id {row.id!r} was used before ({first}); ids must differ")
        found.append(row)
    if not found:
        raise RetrievalError(f"{where} is empty; a JSON list or lines of {ALLOWED_ROW} are needed")
    return found


def tool_of_row(value: object, place: str) -> CatalogueTool:
    """The tool of one decoded row; `place` begins the message of a RetrievalError."""
    if not isinstance(value, Mapping):
        raise RetrievalError(f"{place} is {_kind(value)}; allowed is {ALLOWED_ROW}")
    if is_api(value):
        tool, group = tool_of_api(value, place)
        return CatalogueTool(tool.name, tool, group)
    wrapped = value.get("tool", value)
    try:
        tool = parse_tools([wrapped])[0]
    except ToolsError as exc:
        raise RetrievalError(f"{place}: {str(exc).replace('tools[0]', 'the tool')}") from None
    identity = value.get("id", tool.name) if wrapped is not value else tool.name
    if not isinstance(identity, str) or not identity:
        raise RetrievalError(f"{place}: id is {_kind(identity)}; a non-empty string is needed")
    return CatalogueTool(
        identity, tool, _text(value, "server") or _text(value, "category"), _text(value, "server_description")
    )


def json_rows(data: bytes, where: str) -> Iterator[tuple[str, object]]:
    """Decoded rows of a JSON list, of `{"tools": [...]}` or of JSON lines, each with its place for messages."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise RetrievalError(f"{where} is not UTF-8: byte {exc.start} is {data[exc.start]:#04x}") from None
    if text.lstrip()[:1] == "[":
        value = _decoded(text, where)
        assert isinstance(value, list)
        yield from ((f"{where}, entry {n}", entry) for n, entry in enumerate(value, 1))
        return
    if (tools := _tools_of_object(text)) is not None:
        yield from ((f"{where}, entry {n}", entry) for n, entry in enumerate(tools, 1))
        return
    for n, line in enumerate(text.split("\n"), 1):
        if line and not line.isspace():
            place = f"{where}, line {n}"
            yield place, _decoded(line, place)


def _tools_of_object(text: str) -> Sequence[object] | None:
    """The `tools` of a text that is one JSON object over several lines."""
    first_line = text.lstrip().partition("\n")[0]
    if not first_line.startswith("{") or first_line.rstrip().endswith("}"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None  # read as lines, which says where the fault is
    tools = value.get("tools", value.get("api_list")) if isinstance(value, dict) else None
    return tools if isinstance(tools, list) else None


def _decoded(text: str, place: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise RetrievalError(f"{place} is not JSON: {exc}") from None


def _text(row: Mapping[str, object], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
