"""Whether a call's arguments are among the accepted ones. Knows nothing of schemas, models or whole answers.

Strings compare trimmed and case-insensitively, numbers numerically, lists in order, objects by key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEFT_OUT = ""  # among the accepted values: the argument may be left out


@dataclass(frozen=True, slots=True)
class Fields:
    """An accepted object whose fields have accepted values of their own, as BFCL writes nested ones."""

    accepted: Mapping[str, Sequence[object]]


def is_any(value: object) -> bool:
    """Whether an accepted value is `{"$any": true}`: all that the schema allows."""
    return isinstance(value, Mapping) and dict(value) == {"$any": True}


def arguments_match(actual: Mapping[str, object], accepted: Mapping[str, Sequence[object]]) -> bool:
    """Whether every argument is accepted, none is undeclared, and only those are missing that may be."""
    if not actual.keys() <= accepted.keys():
        return False
    for name, values in accepted.items():
        if name not in actual:
            if LEFT_OUT not in values:
                return False
        elif not any(same_value(actual[name], value) for value in values):
            return False
    return True


def same_value(actual: object, accepted: object) -> bool:
    """Whether one value is the accepted one."""
    if is_any(accepted):
        return True
    if isinstance(accepted, Fields):
        return isinstance(actual, Mapping) and arguments_match(actual, accepted.accepted)
    if isinstance(accepted, str):
        return isinstance(actual, str) and actual.strip().casefold() == accepted.strip().casefold()
    if isinstance(accepted, bool) or isinstance(actual, bool) or accepted is None:
        return actual is accepted
    if isinstance(accepted, int | float):
        return _same_number(actual, accepted)
    if isinstance(accepted, Mapping):
        return (
            isinstance(actual, Mapping)
            and actual.keys() == accepted.keys()
            and all(same_value(actual[key], accepted[key]) for key in accepted)
        )
    if isinstance(accepted, Sequence):
        return (
            isinstance(actual, Sequence)
            and not isinstance(actual, str)
            and len(actual) == len(accepted)
            and all(same_value(a, b) for a, b in zip(actual, accepted, strict=True))
        )
    return False


def _same_number(actual: object, accepted: int | float) -> bool:
    if not isinstance(actual, int | float):
        return False
    if isinstance(actual, int) and isinstance(accepted, int):
        return actual == accepted
    try:
        # 0.1 + 0.2 is what a calculation gives where 0.3 is accepted.
        return math.isclose(actual, accepted, rel_tol=1e-9)
    except OverflowError:  # an integer beyond float's range
        return actual == accepted


def example_arguments(
    accepted: Mapping[str, Sequence[object]], properties: Mapping[str, object], required: Sequence[str]
) -> dict[str, object]:
    """Arguments that are accepted: the first value of each, optional ones that may be left out left out."""
    example = {}
    for name, values in accepted.items():
        if LEFT_OUT in values and name not in required:
            continue
        schema = properties.get(name)
        chosen = next((value for value in values if value != LEFT_OUT), LEFT_OUT)
        example[name] = _example(chosen, schema if isinstance(schema, Mapping) else {})
    return example


def _example(value: object, schema: Mapping[str, object]) -> object:
    if isinstance(value, Fields):
        return {
            name: _example(values[0], {}) for name, values in value.accepted.items() if LEFT_OUT not in values
        }
    if is_any(value):
        return _sample(schema)
    if isinstance(value, list | tuple):
        return [_example(item, {}) for item in value]
    return value


def _sample(schema: Mapping[str, object]) -> object:
    """A value of the schema's type; its bounds are not looked at."""
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    samples: dict[object, object] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
    return samples.get(kind, "text")
