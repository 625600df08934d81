"""The text of a choice to tool names: a JSON list, JSON objects, or names on lines. Which exist is not known here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

SELECT_TOOLS = "select_tools"
_MAX_TRIES = 64  # openings of JSON that are looked at; a text of brackets alone would take minutes
_MARKUP = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s*|[\"'`]")


def names_in(text: str) -> list[str]:
    """The names of a choice in its order, each once.

    `["a", "b"]`, `{"tools": [...]}`, `{"name": "a", ...}` once or several times, `a, b`, or a name a line, also
    numbered. Of a call of select_tools its arguments count.
    """
    found: list[str] = []
    for value in _json_values(text):
        found += _names_of(value)
    if not found:
        for part in re.split(r"[\n,;]", text):
            name = _MARKUP.sub("", part).strip()
            if name and not re.search(r"[\s{}\[\]<>]", name):
                found.append(name)
    return list(dict.fromkeys(found))


def _json_values(text: str) -> list[object]:
    """The JSON objects and lists that stand in a text, one behind the other."""
    decoder, values, at = json.JSONDecoder(), [], 0
    for _ in range(_MAX_TRIES):
        start = _next_opening(text, at)
        if start < 0:
            break
        try:
            value, at = decoder.raw_decode(text, start)
            values.append(value)
        except (ValueError, RecursionError):
            at = start + 1
    return values


def _next_opening(text: str, at: int) -> int:
    places = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(places, default=-1)


def _names_of(value: object) -> list[str]:
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, list):
        return [name for child in value for name in _names_of(child)]
    if isinstance(value, Mapping):
        name = value.get("name")
        if isinstance(name, str) and name != SELECT_TOOLS:
            return _names_of(name)
        for key in ("arguments", "tools", "names", "function", "selected"):
            if key in value:
                return _names_of(value[key])
    return []
