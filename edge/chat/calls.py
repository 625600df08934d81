"""The text of one call to its name and arguments, in both dialects that models write.

Hermes: `{"name": NAME, "arguments": {...}}`, which is what is generated here. Qwen's XML, which models trained on
Qwen3.5's own template write when the grammar is off:

    <function=NAME>
    <parameter=KEY>
    VALUE
    </parameter>
    </function>
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NoReturn

from edge.types import JsonValue, Schema

_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


class CallSyntaxError(Exception):
    """The text is not a call; the message says why. Never leaves the engine."""


def parse_call(text: str, schemas: Mapping[str, Schema] | None = None) -> tuple[str, dict[str, JsonValue]]:
    """Name and arguments of a call.

    schemas: of the arguments, by tool name. The XML dialect writes every value as bare text; a value is read as JSON
        where its schema allows no string, and is the text itself otherwise.
    Of a key given twice the last value counts, as everywhere in JSON. Raises CallSyntaxError for anything else: no
    JSON, no name, arguments that are no object, infinities.
    """
    stripped = text.strip()
    if stripped.startswith("<function="):
        return _parse_xml(stripped, schemas or {})
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


def _parse_xml(text: str, schemas: Mapping[str, Schema]) -> tuple[str, dict[str, JsonValue]]:
    function = _FUNCTION.fullmatch(text)
    if function is None:
        raise CallSyntaxError("<function=...> is not closed by </function>")
    name, body = function[1].strip(), function[2]
    if left := _PARAMETER.sub("", body).strip():
        raise CallSyntaxError(f"text outside the parameters of {name}: {left[:40]!r}")
    schema = schemas.get(name)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    known = properties if isinstance(properties, Mapping) else {}
    return name, {m[1].strip(): _typed(m[2], known.get(m[1].strip())) for m in _PARAMETER.finditer(body)}


def _typed(text: str, schema: object) -> JsonValue:
    types = schema.get("type") if isinstance(schema, Mapping) else None
    if types is None or types == "string" or (isinstance(types, list) and "string" in types):
        return text
    try:
        value: JsonValue = json.loads(text, parse_constant=_no_constants)
    except (ValueError, RecursionError):
        return text  # the validator says what was expected
    return value


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
