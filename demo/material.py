"""The written training material below `data/`: tools with requests for them, cases for no tool, whole dialogues.

The format is described in data/README.md. Everything is checked on reading: a call that its tool's schema refuses, a
slot that nobody lists or a turn out of order is an error with the place it was found.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from demo.slots import SLOT as _SLOT
from demo.slots import MaterialError, Slots

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
    groups show; "drop" leaves the argument out where it is hidden, "show" leaves the request out. lists: parameters that
    may also be a list. codes: parameters that hold a language's name or, described otherwise, its code.
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

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        return {"type": "object", "properties": dict(self.properties), "required": list(self.required)}


@dataclass(frozen=True, slots=True)
class Turn:
    """One step: user, call (name and argument templates), result or say."""

    kind: str
    text: str = ""
    calls: tuple[tuple[str, Args], ...] = ()
    results: tuple[str, ...] = ()
    is_trained: bool = True


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
    """A deployment: system text with house rules, tools, and conversations under it. has_date: it states today's date."""

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


def read_material(folder: Path, *, without: str = "") -> Material:
    """without: a pattern of file names to leave out. Raises MaterialError with every fault found, a line each."""
    files = sorted(
        path
        for path in folder.glob("*.yaml")
        if path.name != "pools.yaml" and not fnmatch(path.stem, without)
    )
    material, faults = read_files(files)
    if faults:
        raise MaterialError("\n".join(faults))
    return material


def read_files(
    files: Sequence[Path], known: Mapping[str, WrittenTool] | None = None
) -> tuple[Material, list[str]]:
    """known: tools that dialogues may use beside those of the files."""
    tools: dict[str, WrittenTool] = dict(known or {})
    loose: list[tuple[str, str, Any]] = []
    deployed: list[tuple[str, Any]] = []
    faults: list[str] = []
    for path in files:
        try:
            parsed = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as exc:
            faults.append(f"{path.name}: not YAML: {' '.join(str(exc).split())[:200]}")
            continue
        for number, entry in enumerate(parsed.get("tools") or []):
            with _collecting(
                faults, f"{path.name}: tool {number} {entry.get('name') if isinstance(entry, dict) else ''}"
            ):
                tool = _tool(entry, path.stem)
                if tool.name in tools:
                    raise MaterialError("the name is taken")
                tools[tool.name] = tool
        loose += [(path.stem, "no_tool", entry) for entry in parsed.get("no_tool") or []]
        loose += [(path.stem, "dialogs", entry) for entry in parsed.get("dialogs") or []]
        deployed += [(path.stem, entry) for entry in parsed.get("settings") or []]
    made: dict[str, list[Dialog]] = {"no_tool": [], "dialogs": []}
    for number, (file, kind, entry) in enumerate(loose):
        with _collecting(faults, f"{file}: {kind} {number} {str(entry)[:70]!r}"):
            dialog = _no_tool(entry, file) if kind == "no_tool" else _dialog(entry, file)
            _check_dialog(dialog, tools)
            made[kind].append(dialog)
    for tool in tools.values():
        for request in (*tool.requests, *tool.many):
            with _collecting(faults, f"{tool.file}: {tool.name}: {request.ask[:60]!r}"):
                _check_calls(request.ask, request.calls, tool.values, tools)
    settings = [setting for file, entry in deployed if (setting := _setting(entry, file, tools, faults))]
    return Material(tools, tuple(made["no_tool"]), tuple(made["dialogs"]), tuple(settings)), faults


class _collecting:  # noqa: N801: reads as a statement
    """A fault inside becomes a line of the list."""

    def __init__(self, faults: list[str], place: str) -> None:
        self._faults, self._place = faults, place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, MaterialError | KeyError | TypeError | ValueError | AttributeError | IndexError):
            self._faults.append(
                f"{self._place}: {type(error).__name__ if not isinstance(error, MaterialError) else ''} {error}"
            )
            return True
        return False


def _tool(entry: Mapping[str, Any], file: str) -> WrittenTool:
    properties, required = {}, []
    for name, given in (entry.get("parameters") or {}).items():
        schema = {key: value for key, value in given.items() if key not in ("optional", "sometimes")}
        properties[name] = schema
        if not given.get("optional"):
            required.append(name)
    name = entry["name"]
    Draft202012Validator.check_schema({"properties": properties})
    return WrittenTool(
        name=name,
        description=entry["description"],
        properties=properties,
        required=tuple(required),
        values=entry.get("values") or {},
        requests=tuple(Request(one["ask"], ((name, one.get("args") or {}),)) for one in entry["requests"]),
        many=tuple(
            Request(one["ask"], tuple((name, args or {}) for args in one["calls"]))
            for one in entry.get("many") or []
        ),
        result=_result(entry["result"]) if entry.get("result") is not None else None,
        say=entry.get("say"),
        rename=entry.get("rename") or {},
        also_described=tuple(entry.get("also_described") or ()),
        sometimes={k: v["sometimes"] for k, v in (entry.get("parameters") or {}).items() if "sometimes" in v},
        lists=tuple(entry.get("lists") or ()),
        codes=entry.get("codes") or {},
        file=file,
    )


def _result(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _no_tool(entry: Mapping[str, Any], file: str) -> Dialog:
    turns = (Turn("user", entry["ask"]), Turn("say", entry["say"]))
    return Dialog(
        "no_tool_needed",
        turns,
        tuple(entry.get("tools") or ()),
        entry.get("system") or "",
        entry.get("values") or {},
        file,
    )


def _dialog(entry: Mapping[str, Any], file: str) -> Dialog:
    if entry["scenario"] not in SCENARIOS:
        raise MaterialError(f"no scenario {entry['scenario']!r}; there are {', '.join(SCENARIOS)}")
    turns = tuple(_turn(step) for step in entry["turns"])
    return Dialog(
        entry["scenario"],
        turns,
        tuple(entry.get("tools") or ()),
        entry.get("system") or "",
        entry.get("values") or {},
        file,
    )


def _setting(
    entry: Mapping[str, Any], file: str, tools: Mapping[str, WrittenTool], faults: list[str]
) -> Setting | None:
    dialogs = []
    place = f"{file}: setting {str(entry.get('system'))[:50]!r}"
    for number, given in enumerate(entry.get("dialogs") or []):
        with _collecting(faults, f"{place}: dialog {number}"):
            values = (entry.get("values") or {}) | (given.get("values") or {})
            dialog = _dialog({**given, "values": values, "tools": entry["tools"]}, file)
            _check_dialog(dialog, tools)
            dialogs.append(dialog)
    with _collecting(faults, place):
        if _SLOT.search(entry["system"]):
            raise MaterialError("the system text of a setting has no slots")
        return Setting(entry["system"], tuple(entry["tools"]), tuple(dialogs), bool(entry.get("today")), file)
    return None


def _turn(step: Mapping[str, Any]) -> Turn:
    ((kind, content),) = step.items()
    if kind in ("user", "say"):
        return Turn(kind, str(content))
    if kind == "result":
        listed = content if isinstance(content, list) else [content]
        return Turn(kind, results=tuple(_result(one) for one in listed))
    if kind == "call":
        listed = content if isinstance(content, list) else [content]
        return Turn(kind, calls=tuple((name, args or {}) for one in listed for name, args in one.items()))
    raise MaterialError(f"a turn is user, call, result or say, not {kind!r}")


def _check_dialog(dialog: Dialog, tools: Mapping[str, WrittenTool]) -> None:
    before = ""
    allowed = {
        "": ("user",),
        "user": ("call", "say"),
        "call": ("result",),
        "result": ("call", "say"),
        "say": ("user",),
    }
    n_calls = 0
    for turn in dialog.turns:
        if turn.kind not in allowed[before]:
            raise MaterialError(f"a {turn.kind} cannot follow {before or 'nothing'}")
        if turn.kind == "result" and len(turn.results) != n_calls:
            raise MaterialError(f"{len(turn.results)} results for {n_calls} calls")
        n_calls = len(turn.calls)
        for name, _ in turn.calls:
            if name not in dialog.tools:
                raise MaterialError(f"{name} is called and not among its tools")
        before = turn.kind
    if before not in ("say", "call"):
        raise MaterialError(f"it ends with a {before}")
    for name in dialog.tools:
        if name not in tools:
            raise MaterialError(f"no tool {name}")
    slots = Slots(random.Random(1), date(2026, 3, 4), dialog.values)
    for turn in dialog.turns:
        _fill_once(turn, slots, tools)


def _fill_once(turn: Turn, slots: Slots, tools: Mapping[str, WrittenTool]) -> None:
    slots.text(turn.text, said=turn.kind == "user")
    for result in turn.results:
        slots.text(result, said=False)
    for name, args in turn.calls:
        check_call(tools[name], slots.argument(args))


def _check_calls(
    ask: str, calls: Sequence[tuple[str, Args]], own: Mapping[str, Any], tools: Mapping[str, WrittenTool]
) -> None:
    slots = Slots(random.Random(1), date(2026, 3, 4), own)
    slots.text(ask, said=True)
    for name, args in calls:
        check_call(tools[name], slots.argument(args))


def check_call(tool: WrittenTool, arguments: Any) -> None:
    """Raises MaterialError where the tool's schema refuses the arguments."""
    schema = {**tool.schema(), "additionalProperties": False}
    for error in Draft202012Validator(schema).iter_errors(arguments):
        raise MaterialError(f"{tool.name}: {'/'.join(map(str, error.absolute_path))} {error.message[:150]}")


def user_texts(material: Material) -> Iterator[str]:
    """Every sentence of a user, with its slots open."""
    for tool in material.tools.values():
        yield from (request.ask for request in (*tool.requests, *tool.many))
    for dialog in (*material.no_tool, *material.dialogs):
        yield from (turn.text for turn in dialog.turns if turn.kind == "user")
