"""Reads the written training material below `data/` and checks all of it.

A call that its tool's schema refuses, a slot that nobody lists or a turn out of order is a fault, told with the place
where it was found. What is right in fact (whether a call does what the user asked) nobody but a reader can check.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, SchemaError

from demo.material import SCENARIOS, Args, Dialog, Material, Request, Setting, Turn, WrittenTool
from demo.pools import load_yaml
from demo.slots import SLOT, MaterialError, Slots

DATA = Path(__file__).parent / "data"
_TRIAL_DAY = date(2026, 3, 4)
_MAY_FOLLOW = {
    "": ("user",),
    "user": ("call", "say"),
    "call": ("result",),
    "result": ("call", "say"),
    "say": ("user",),
}


def read_material(folder: Path = DATA, *, without: Sequence[str] = ()) -> Material:
    """without: patterns of file names to leave out. Raises MaterialError with every fault found, a line each."""
    named = {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.name != "pools.yaml"}
    for glob in without:
        # A slip in a pattern would train on what was to be kept apart.
        if not any(fnmatch(name, glob) for name in named):
            raise MaterialError(
                f"--without {glob} names no file of {folder}; a pattern is of their names without .yaml, as settings_h*"
            )
    files = [path for name, path in named.items() if not any(fnmatch(name, glob) for glob in without)]
    if not files:
        raise MaterialError(f"{folder}: no *.yaml to read; there are {', '.join(named) or 'none'}")
    material, faults = read_files(files)
    if faults and without:
        faults.append(f"a tool that is missing may stand in a file that was left out by {', '.join(without)}")
    if faults:
        raise MaterialError("\n".join(faults))
    return material


def read_files(files: Sequence[Path]) -> tuple[Material, list[str]]:
    """What could be read, and the faults of the rest."""
    faults: list[str] = []
    parsed = list(_parsed(files, faults))
    tools = _tools(parsed, faults)
    no_tool = tuple(_dialogs(parsed, "no_tool", tools, faults))
    dialogs = tuple(_dialogs(parsed, "dialogs", tools, faults))
    for tool in tools.values():
        for request in (*tool.requests, *tool.many):
            with _collecting(faults, f"{tool.file}: {tool.name}: {request.ask[:60]!r}"):
                _try_request(request, tools)
    settings = tuple(_settings(parsed, tools, faults))
    return Material(tools, no_tool, dialogs, settings), faults


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    content: Mapping[str, Any]


@contextmanager
def _collecting(faults: list[str], place: str) -> Iterator[None]:
    """A fault inside becomes a line of the list."""
    try:
        yield
    except MaterialError as exc:
        faults.append(f"{place}: {exc}")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        # The entry has another shape than the format says.
        faults.append(f"{place}: {type(exc).__name__} {exc}")


def _parsed(files: Sequence[Path], faults: list[str]) -> Iterator[_File]:
    for path in files:
        try:
            content = load_yaml(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as exc:
            faults.append(f"{path.name}: not YAML: {' '.join(str(exc).split())[:200]}")
            continue
        if not isinstance(content, Mapping):
            faults.append(f"{path.name}: holds a {type(content).__name__}, not tools, no_tool and dialogs")
            continue
        yield _File(path.stem, content)


def _tools(files: Sequence[_File], faults: list[str]) -> dict[str, WrittenTool]:
    tools: dict[str, WrittenTool] = {}
    for file in files:
        for number, entry in enumerate(file.content.get("tools") or []):
            name = entry.get("name") if isinstance(entry, Mapping) else ""
            with _collecting(faults, f"{file.name}: tool {number} {name}"):
                tool = _tool(entry, file.name)
                if tool.name in tools:
                    raise MaterialError("the name is taken")
                tools[tool.name] = tool
    return tools


def _dialogs(
    files: Sequence[_File], kind: str, tools: Mapping[str, WrittenTool], faults: list[str]
) -> Iterator[Dialog]:
    for file in files:
        for number, entry in enumerate(file.content.get(kind) or []):
            with _collecting(faults, f"{file.name}: {kind} {number} {str(entry)[:70]!r}"):
                dialog = _dialog(_as_dialog(entry) if kind == "no_tool" else entry, file.name)
                _check_order(dialog)
                _try_dialog(dialog, tools)
                yield dialog


def _settings(
    files: Sequence[_File], tools: Mapping[str, WrittenTool], faults: list[str]
) -> Iterator[Setting]:
    for file in files:
        for entry in file.content.get("settings") or []:
            place = f"{file.name}: setting {str(entry)[:70]!r}"
            with _collecting(faults, place):
                yield _setting(entry, file.name, tools, faults)


def _setting(
    entry: Mapping[str, Any], file: str, tools: Mapping[str, WrittenTool], faults: list[str]
) -> Setting:
    if SLOT.search(entry["system"]):
        raise MaterialError("the system text of a setting has no slots")
    dialogs = []
    for number, given in enumerate(entry.get("dialogs") or []):
        with _collecting(faults, f"{file}: setting {entry['system'][:50]!r}: dialog {number}"):
            values = {**(entry.get("values") or {}), **(given.get("values") or {})}
            dialog = _dialog({**given, "values": values, "tools": entry["tools"]}, file)
            _check_order(dialog)
            _try_dialog(dialog, tools)
            dialogs.append(dialog)
    return Setting(entry["system"], tuple(entry["tools"]), tuple(dialogs), bool(entry.get("today")), file)


def _tool(entry: Mapping[str, Any], file: str) -> WrittenTool:
    name, parameters = entry["name"], entry.get("parameters") or {}
    properties = {key: _schema_alone(given) for key, given in parameters.items()}
    required = tuple(key for key, given in parameters.items() if not given.get("optional"))
    return WrittenTool(
        name=name,
        description=entry["description"],
        properties=properties,
        required=required,
        values=entry.get("values") or {},
        requests=tuple(Request(one["ask"], ((name, one.get("args") or {}),)) for one in entry["requests"]),
        many=tuple(_many(one, name) for one in entry.get("many") or []),
        result=None if entry.get("result") is None else _result(entry["result"]),
        say=entry.get("say"),
        rename=entry.get("rename") or {},
        also_described=tuple(entry.get("also_described") or ()),
        sometimes={key: given["sometimes"] for key, given in parameters.items() if "sometimes" in given},
        lists=tuple(entry.get("lists") or ()),
        codes=entry.get("codes") or {},
        file=file,
        validator=_validator(properties, required),
    )


def _schema_alone(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in ("optional", "sometimes")}


def _validator(properties: Mapping[str, object], required: Sequence[str]) -> Draft7Validator:
    schema = {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }
    try:
        Draft7Validator.check_schema(schema)
    except SchemaError as exc:
        raise MaterialError(f"no JSON Schema: {exc.message[:150]}") from exc
    return Draft7Validator(schema)


def _many(entry: Mapping[str, Any], name: str) -> Request:
    return Request(entry["ask"], tuple((name, args or {}) for args in entry["calls"]))


def _result(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _as_dialog(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A case for no tool, written shorter than a dialogue, as one."""
    turns = [{"user": entry["ask"]}, {"say": entry["say"]}]
    return {**entry, "scenario": "no_tool_needed", "turns": turns}


def _dialog(entry: Mapping[str, Any], file: str) -> Dialog:
    if entry["scenario"] not in SCENARIOS:
        raise MaterialError(f"no scenario {entry['scenario']!r}; there are {', '.join(SCENARIOS)}")
    return Dialog(
        scenario=entry["scenario"],
        turns=tuple(_turn(step) for step in entry["turns"]),
        tools=tuple(entry.get("tools") or ()),
        system=entry.get("system") or "",
        values=entry.get("values") or {},
        file=file,
    )


def _turn(step: Mapping[str, Any]) -> Turn:
    ((kind, content),) = step.items()
    if kind in ("user", "say"):
        return Turn(kind, str(content))
    listed = content if isinstance(content, list) else [content]
    if kind == "result":
        return Turn(kind, results=tuple(_result(one) for one in listed))
    if kind == "call":
        return Turn(kind, calls=tuple((name, args or {}) for one in listed for name, args in one.items()))
    raise MaterialError(f"a turn is user, call, result or say, not {kind!r}")


def _check_order(dialog: Dialog) -> None:
    before, n_calls = "", 0
    for turn in dialog.turns:
        if turn.kind not in _MAY_FOLLOW[before]:
            raise MaterialError(f"a {turn.kind} cannot follow {before or 'nothing'}")
        if turn.kind == "result" and len(turn.results) != n_calls:
            raise MaterialError(f"{len(turn.results)} results for {n_calls} calls")
        before, n_calls = turn.kind, len(turn.calls)
    if before not in ("say", "call"):
        raise MaterialError(f"it ends with a {before}")


def _try_dialog(dialog: Dialog, tools: Mapping[str, WrittenTool]) -> None:
    """Every slot filled once, every call held against its schema."""
    for name in dialog.tools:
        if name not in tools:
            raise MaterialError(f"no tool {name}")
    slots = Slots(random.Random(1), _TRIAL_DAY, dialog.values)
    slots.text(dialog.system, said=True)
    for turn in dialog.turns:
        slots.text(turn.text, said=turn.kind == "user")
        for result in turn.results:
            slots.text(result, said=False)
        for name, args in turn.calls:
            if name not in dialog.tools:
                raise MaterialError(f"{name} is called and not among its tools")
            tools[name].check(slots.argument(args))


def _try_request(request: Request, tools: Mapping[str, WrittenTool]) -> None:
    own: Args = tools[request.calls[0][0]].values
    slots = Slots(random.Random(1), _TRIAL_DAY, own)
    slots.text(request.ask, said=True)
    for name, args in request.calls:
        tools[name].check(slots.argument(args))
