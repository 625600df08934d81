"""Evaluation cases from a JSONL file: this program's own form, and BFCL's normalised one. Bad lines are named.

    {"id", "scenario", "messages": [...], "tools": [name or tool, ...], "expected": [{"name", "arguments"}]}

Does not run or judge anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.accuracy.bfcl import SkippedRow, is_bfcl, native_row
from edge.accuracy.errors import CasesError
from edge.accuracy.values import Fields
from edge.chat.messages import normalize_messages
from edge.engine.request import ChatRequest, plan_tools
from edge.errors import EdgeError
from edge.grammar import CompiledTool, parse_tools, read_tools
from edge.types import Tool

_MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class ExpectedCall:
    """A call that is right. arguments: accepted values by parameter, see `values`."""

    name: str
    arguments: Mapping[str, Sequence[object]]


@dataclass(frozen=True, slots=True)
class EvalCase:
    """One question with the calls that answer it. No expected call: any call is wrong."""

    id: str
    scenario: str
    messages: tuple[Mapping[str, object], ...]
    tools: tuple[Tool, ...]
    expected: tuple[ExpectedCall, ...]

    def compiled(self) -> dict[str, CompiledTool]:
        """The case's tools as the engine compiles them, by name."""
        request = ChatRequest(messages=self.messages, tools=self.tools)
        return {tool.tool.name: tool for tool in plan_tools(request).callable}

    def digest(self) -> str:
        """Changes with what is asked, not with what is expected: stored answers stay good when labels change."""
        asked = [list(self.messages), [tool.to_openai() for tool in self.tools]]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class CaseSet:
    """The cases of a file, in its order. skipped: (line number, why) of rows that cannot be judged."""

    path: Path
    cases: tuple[EvalCase, ...]
    skipped: tuple[tuple[int, str], ...] = ()


class _BadRow(Exception):
    """What is wrong with a line."""


def read_cases(path: Path, tools_file: Path | None = None, *, limit: int | None = None) -> CaseSet:
    """All cases of a file. Raises CasesError naming the lines that are none, ToolsError for the tools file.

    tools_file: what bare tool names refer to; tools.json beside the cases if it is not given.
    limit: stop after that many cases.
    """
    named = _read_tools_file(path, tools_file)
    cases: list[EvalCase] = []
    faults: list[tuple[int, str]] = []
    skipped: list[tuple[int, str]] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            case = _case(line, named)
            if case.id in first_line:
                raise _BadRow(f"id {case.id!r} is also that of line {first_line[case.id]}; ids must differ")
        except SkippedRow as exc:
            skipped.append((number, str(exc)))
            continue
        except (_BadRow, EdgeError) as exc:
            faults.append((number, str(exc)))
            continue
        first_line[case.id] = number
        cases.append(case)
        if limit is not None and len(cases) >= limit:
            break
    if faults:
        raise CasesError(path, faults)
    if not cases:
        raise CasesError(path, [(1, "there is no case in this file; one JSON object a line is needed")])
    return CaseSet(path, tuple(cases), tuple(skipped))


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise CasesError(path, [(1, "the file is larger than 1 GiB; one JSON object a line is needed")])
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise CasesError(path, [(1, f"it cannot be read: {exc.strerror or exc}")]) from None
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        raise CasesError(path, [(line, f"byte {exc.object[exc.start]:#04x} is not UTF-8")]) from None
    return text.split("\n")  # not splitlines: U+2028 may stand inside a JSON string


def _read_tools_file(path: Path, tools_file: Path | None) -> dict[str, Tool]:
    file = tools_file or path.parent / "tools.json"
    if tools_file is None and not file.exists():
        return {}
    return {tool.name: tool for tool in read_tools(file)}


def _case(line: str, named: Mapping[str, Tool]) -> EvalCase:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise _BadRow(f"not JSON: {exc}") from None
    if not isinstance(row, dict):
        raise _BadRow(f"a JSON {type(row).__name__}; an object is needed")
    if is_bfcl(row):
        row = native_row(row)
    for key in ("id", "scenario"):
        if not isinstance(row.get(key), str) or not row[key]:
            raise _BadRow(f"{key} is {_shown(row.get(key))}; a non-empty string is needed")
    tools = _tools(row.get("tools"), named)
    case = EvalCase(
        id=row["id"],
        scenario=row["scenario"],
        messages=tuple(_messages(row.get("messages"))),
        tools=tools,
        expected=_expected(row.get("expected"), {tool.name for tool in tools}),
    )
    case.compiled()  # a schema that cannot be enforced is found now, not after hours
    return case


def _messages(value: object) -> Sequence[Mapping[str, object]]:
    if not isinstance(value, list):
        raise _BadRow(f"messages is {_shown(value)}; a list of chat messages is needed")
    messages = normalize_messages(value)
    if messages[-1]["role"] == "assistant":
        raise _BadRow("the last message is the assistant's; the answer to it is what is evaluated")
    return messages


def _tools(value: object, named: Mapping[str, Tool]) -> tuple[Tool, ...]:
    if not isinstance(value, list):
        raise _BadRow(f"tools is {_shown(value)}; a list of tool names or tools is needed")
    full = []
    for entry in value:
        if not isinstance(entry, str):
            full.append(entry)
        elif entry in named:
            full.append(named[entry].to_openai())
        else:
            known = (
                ", ".join(sorted(named)[:12]) or "none: give --tools FILE or put tools.json beside the cases"
            )
            raise _BadRow(f"there is no tool {entry!r}; named tools are {known}")
    return parse_tools(full)


def _expected(value: object, tools: set[str]) -> tuple[ExpectedCall, ...]:
    if not isinstance(value, list):
        raise _BadRow(f"expected is {_shown(value)}; a list of calls is needed, [] where no call is right")
    return tuple(_expected_call(f"expected[{i}]", call, tools) for i, call in enumerate(value))


def _expected_call(where: str, value: object, tools: set[str]) -> ExpectedCall:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str):
        raise _BadRow(f'{where} is {_shown(value)}; {{"name": ..., "arguments": {{...}}}} is needed')
    if name not in tools:
        raise _BadRow(
            f"{where} calls {name!r}; the case's tools are {', '.join(sorted(tools)[:12]) or 'none'}"
        )
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        raise _BadRow(f"{where}.arguments is {_shown(arguments)}; an object is needed")
    for key, accepted in arguments.items():
        if not isinstance(accepted, list | tuple) or not accepted:
            raise _BadRow(
                f"{where}.arguments.{key} is {_shown(accepted)}; a list of acceptable values is needed"
            )
    return ExpectedCall(name, {key: tuple(accepted) for key, accepted in arguments.items()})


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    text = json.dumps(value, default=lambda v: v.accepted if isinstance(v, Fields) else str(v))
    return text if len(text) <= 60 else text[:59] + "…"
