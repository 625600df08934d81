"""Checks chat messages and brings them into the one form that templates are given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

from edge.errors import RequestError

ROLES = ("system", "user", "assistant", "tool")


def normalize_messages(messages: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Messages with string content and call arguments as objects.

    Content given as a list of text parts is joined. Arguments given as a JSON string, as OpenAI's wire has them,
    are decoded: templates iterate over them. Raises RequestError naming the message.
    """
    if not messages:
        raise RequestError("there are no messages; at least one is needed")
    normalized = [_normalize(index, message) for index, message in enumerate(messages)]
    for index, message in enumerate(normalized):
        if message["role"] == "system" and index > 0:
            raise RequestError(f"message {index} has the role system; only the first may have it")
    return normalized


def _normalize(index: int, message: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(message, Mapping):
        raise RequestError(
            f"message {index} is {type(message).__name__}; an object with role and content is needed"
        )
    role = message.get("role")
    if role == "developer":  # OpenAI's newer name
        role = "system"
    if role not in ROLES:
        raise RequestError(f"message {index} has the role {role!r}; allowed are {', '.join(ROLES)}")
    calls = message.get("tool_calls")
    content = _text(index, message.get("content"), optional=bool(calls))
    normalized: dict[str, object] = {"role": role, "content": content}
    if role == "assistant" and calls:
        normalized["tool_calls"] = _calls(index, calls)
    if role == "assistant" and isinstance(message.get("reasoning_content"), str):
        normalized["reasoning_content"] = message["reasoning_content"]
    for key in ("name", "tool_call_id"):
        if isinstance(message.get(key), str):
            normalized[key] = message[key]
    return normalized


def _text(index: int, content: object, *, optional: bool) -> str:
    if content is None and optional:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [
            p.get("text") if isinstance(p, Mapping) and p.get("type") == "text" else None for p in content
        ]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(parts):
            return "".join(texts)
        raise RequestError(
            f"message {index} has a content part that is not text; these models read text only"
        )
    raise RequestError(f"message {index} has content of type {type(content).__name__}; a string is needed")


def _calls(index: int, calls: object) -> list[dict[str, object]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise RequestError(f"message {index} has tool_calls of type {type(calls).__name__}; a list is needed")
    return [_call(f"message {index}, tool call {n}", call) for n, call in enumerate(calls)]


def _call(where: str, call: object) -> dict[str, object]:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not isinstance(name, str):
        raise RequestError(f"{where} lacks function.name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}", parse_constant=_no_constants)
        except (ValueError, RecursionError) as exc:
            raise RequestError(f"{where} ({name}) has arguments that are not JSON: {exc}") from None
    if not isinstance(arguments, Mapping):
        raise RequestError(f"{where} ({name}) has arguments that are not an object")
    function_out = {"name": name, "arguments": dict(arguments)}
    return {"id": str(call.get("id") or ""), "type": "function", "function": function_out}


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
