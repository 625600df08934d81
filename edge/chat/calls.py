"""The text of one call to its name and arguments."""

from __future__ import annotations

import json
from typing import NoReturn

from edge.types import JsonValue


class CallSyntaxError(Exception):
    """The text is not a call; the message says why. Never leaves the engine."""


def parse_call(text: str) -> tuple[str, dict[str, JsonValue]]:
    """Name and arguments of `{"name": ..., "arguments": {...}}`.

    Of a key given twice the last value counts, as everywhere in JSON. Raises CallSyntaxError for anything else: no
    JSON, no name, arguments that are no object, infinities.
    """
    try:
        value = json.loads(text, parse_constant=_no_constants)
    except (ValueError, RecursionError) as exc:
        raise CallSyntaxError(f"not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise CallSyntaxError(f"a JSON {type(value).__name__}, an object is needed")
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str):
        raise CallSyntaxError("no name")
    if not isinstance(arguments, dict):
        raise CallSyntaxError(f"arguments of {name} are not an object")
    return name, arguments


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
