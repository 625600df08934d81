"""Tools and services that a file declares: a command line or an HTTP request with the arguments filled in.

A command is a list; an argument fills one place in it and never becomes several, and no shell reads it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from edge.errors import ToolsError
from edge.tools.config import Action, DeclaredTool
from edge.tools.executable import (
    Arguments,
    CallContext,
    Effect,
    ExecutableTool,
    ToolFailure,
    ToolFunction,
    ToolResult,
)
from edge.tools.fetch import FetchOptions, Request, fetch
from edge.tools.process import Outcome, ProcessLimits, run_process
from edge.tools.sandbox import SandboxOptions, run_sandboxed
from edge.types import Tool

_PLACE = re.compile(r"\{(\w+)\}")
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


def declared_tool(declared: DeclaredTool, workspace: Path, http: FetchOptions) -> ExecutableTool:
    """The tool of a declaration. Raises ToolsError for a place that no parameter fills."""
    tool = Tool(declared.name, declared.parameters, declared.description)
    properties = declared.parameters.get("properties")
    check_places(declared, properties if isinstance(properties, Mapping) else {}, f"the tool {declared.name}")
    return ExecutableTool(
        tool=tool,
        call=action_function(declared, workspace, http),
        effects=frozenset(declared.effects if declared.effects is not None else _default_effects(declared)),
        source="config",
        timeout_s=declared.timeout_s,
    )


def _default_effects(action: Action) -> tuple[Effect, ...]:
    return ("execute",) if action.command is not None else ("network", "send")


def check_places(action: Action, names: Iterable[str], where: str) -> None:
    """Raises ToolsError for a `{place}` that is none of the names."""
    known = set(names)
    texts = [
        action.stdin,
        action.url or "",
        action.body or "",
        *action.headers.values(),
        *action.query.values(),
    ]
    for part in action.command or ():
        texts += [part] if isinstance(part, str) else part
    texts.append(json.dumps(action.json_body))
    for text in texts:
        for place in _PLACE.findall(text):
            if place not in known:
                raise ToolsError(
                    f"{where}: {{{place}}} is no parameter; there are: {', '.join(sorted(known)) or 'none'}"
                )


def action_function(action: Action, workspace: Path, http: FetchOptions) -> ToolFunction:
    """The function that does what is declared."""
    if action.command is not None:
        return lambda arguments, context: _run(action, workspace, arguments, context)
    return lambda arguments, context: _request(action, http, arguments, context)


def _run(action: Action, workspace: Path, arguments: Arguments, context: CallContext) -> ToolResult:
    argv = command_line(action, arguments)
    stdin = _filled(action.stdin, arguments).encode()
    if action.sandbox:
        if stdin:
            raise ToolFailure("stdin is not available in the sandbox")
        outcome = run_sandboxed(argv, workspace, SandboxOptions(time_s=action.timeout_s), context)
    else:
        kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        limits = ProcessLimits(time_s=action.timeout_s, memory_mb=4096, disk_mb=4096, n_processes=256)
        outcome = run_process(
            argv, limits, context, env=kept | action.env, cwd=workspace, stdin=stdin, disk=workspace
        )
    return _told(outcome)


def _told(outcome: Outcome) -> ToolResult:
    notes = [f"[stopped: {outcome.killed}]"] if outcome.killed else []
    if not outcome.killed and outcome.exit_code:
        notes = [f"[exit code {outcome.exit_code}]"]
    if outcome.cut:
        notes.insert(0, "[cut: there was more output]")
    text = "\n".join([outcome.output.rstrip("\n"), *notes]).strip("\n")
    failed = bool(outcome.killed or outcome.exit_code)
    return ToolResult(text or "(no output)", is_error=failed, cut=outcome.cut)


def command_line(action: Action, arguments: Arguments) -> list[str]:
    """The program and its arguments.

    Raises ToolFailure for a value that would be read as an option: `-o/etc/x` is no search text.
    """
    assert action.command is not None
    argv: list[str] = []
    for part in action.command:
        if isinstance(part, str):
            argv.append(_argument(part, arguments, argv))
        elif all(place in arguments for text in part for place in _PLACE.findall(text)):
            for text in part:
                argv.append(_argument(text, arguments, argv))
    return argv


def _argument(text: str, arguments: Arguments, before: list[str]) -> str:
    value = _filled(text, arguments)
    if text.startswith("{") and value.startswith("-") and "--" not in before and _PLACE.match(text):
        raise ToolFailure(f"{value!r} begins with a dash and would be read as an option")
    if "\0" in value:
        raise ToolFailure("an argument holds a NUL character")
    return value


def _filled(text: str, arguments: Arguments) -> str:
    """The text with the arguments in their places; what is not given is empty."""
    return _PLACE.sub(lambda match: _text(arguments.get(match.group(1))), text)


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _request(action: Action, http: FetchOptions, arguments: Arguments, context: CallContext) -> ToolResult:
    assert action.url is not None
    url = _PLACE.sub(lambda match: quote(_text(arguments.get(match.group(1))), safe=""), action.url)
    pairs = [
        f"{quote(name, safe='')}={quote(_filled(value, arguments), safe='')}"
        for name, value in action.query.items()
        if all(place in arguments for place in _PLACE.findall(value))
    ]
    if pairs:
        url += ("&" if "?" in url else "?") + "&".join(pairs)
    headers = {name: _filled(value, arguments) for name, value in action.headers.items()}
    body = _filled(action.body, arguments).encode() if action.body is not None else None
    if action.json_body is not None:
        headers.setdefault("Content-Type", "application/json")
        body = json.dumps(_filled_json(action.json_body, arguments)).encode()
    response = fetch(Request(url=url, method=action.method, headers=headers, body=body), http, context)
    text = response.text()
    if response.status >= 400:
        raise ToolFailure(f"HTTP {response.status} {response.reason}: {text[:500]}")
    return ToolResult(_picked(text, action.result) if action.result else text, cut=response.cut)


def _filled_json(value: object, arguments: Arguments) -> object:
    """The value with the arguments in their places; a text that is one place alone takes the argument as it is."""
    if isinstance(value, Mapping):
        return {key: _filled_json(item, arguments) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled_json(item, arguments) for item in value]
    if not isinstance(value, str):
        return value
    whole = _PLACE.fullmatch(value)
    return arguments.get(whole.group(1)) if whole else _filled(value, arguments)


def _picked(text: str, place: str) -> str:
    try:
        value = json.loads(text)
        for step in place.split("."):
            value = value[int(step)] if isinstance(value, list) else value[step]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise ToolFailure(f"the service's answer has no {place!r}: {text[:300]}") from None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
