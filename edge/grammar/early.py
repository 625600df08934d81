"""Finds what is already wrong in a value that is still being written, for keywords that the rules do not hold.

The finished parts of an unfinished JSON text make a value; a fault in them that nothing written later can mend is
early. So a token that would close a repeated item of a `uniqueItems` list, or a string that its pattern refuses, can
be refused while there is still another way to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

# Faults of a container that more items or members cannot mend.
_GROWING = frozenset(("uniqueItems", "maxItems", "maxProperties", "additionalProperties", "propertyNames"))
# Below these a fault counts only as long as something else in the value holds, and that may still change.
_CONDITIONAL = frozenset(
    ("if", "then", "else", "dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef")
)
_DECODER = JSONDecoder()


@dataclass(slots=True)
class Partial:
    """The finished parts of a text. `open_paths`: the containers that are not closed yet, from the outermost in."""

    value: object = None
    open_paths: list[tuple[str | int, ...]] = field(default_factory=list)
    is_empty: bool = True


def partial_value(text: str) -> Partial:
    """The finished parts of the start of a JSON text that is written as `json.dumps` writes it."""
    found = Partial()
    containers: list[list[object] | dict[str, object]] = []
    path: list[str | int] = []
    at, key = 0, ""
    while at < len(text):
        char = text[at]
        if char in "{[":
            fresh: list[object] | dict[str, object] = {} if char == "{" else []
            _put(found, containers, path, key, fresh)
            containers.append(fresh)
            found.open_paths.append(tuple(path))
            at += 1
        elif char in "}]":
            containers.pop()
            found.open_paths.pop()
            if path:
                path.pop()
            at += 1
        elif char in ", :\n":
            at += 1
        else:
            end = _end_of_scalar(text, at)
            if end is None:
                break
            value = text[at:end]
            if containers and isinstance(containers[-1], dict) and text.startswith(": ", end):
                key, at = _DECODER.decode(value), end + 2
                continue
            if containers and isinstance(containers[-1], dict) and _is_key(text, at):
                break
            _put(found, containers, path, key, _DECODER.decode(value))
            if path:
                path.pop()
            at = end
    return found


def _put(
    found: Partial,
    containers: list[list[object] | dict[str, object]],
    path: list[str | int],
    key: str,
    value: object,
) -> None:
    """Adds a value to the innermost open container and steps into it."""
    if not containers:
        found.value, found.is_empty = value, False
        return
    holder = containers[-1]
    if isinstance(holder, list):
        path.append(len(holder))
        holder.append(value)
    else:
        path.append(key)
        holder[key] = value


def _is_key(text: str, at: int) -> bool:
    """Whether the string at the place stands where a name is due, its colon not written yet."""
    return text[:at].rstrip(" ")[-1:] in ("{", ",")


def _end_of_scalar(text: str, at: int) -> int | None:
    """Where the string, number or word at the place ends; None while it may go on."""
    if text[at] == '"':
        end = at + 1
        while end < len(text) and text[end] != '"':
            end += 2 if text[end] == "\\" else 1
        return end + 1 if end < len(text) else None
    for word in ("true", "false", "null"):
        if text.startswith(word, at):
            return at + len(word)
    end = at
    while end < len(text) and text[end] in "+-.0123456789eE":
        end += 1
    return end if at < end < len(text) else None


def early_fault(text: str, errors_of: Callable[[object], Iterable[ValidationError]]) -> str | None:
    """What is wrong in the text so far whatever follows, or None."""
    try:
        found = partial_value(text)
    except (JSONDecodeError, IndexError):
        return None
    if found.is_empty:
        return None
    unfinished = set(found.open_paths)
    for error in errors_of(found.value):
        if _CONDITIONAL.intersection(map(str, error.absolute_schema_path)):
            continue
        if tuple(error.absolute_path) not in unfinished or error.validator in _GROWING:
            return str(error.message)
    return None
