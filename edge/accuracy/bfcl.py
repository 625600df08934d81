"""Rows of the Berkeley Function Calling Leaderboard in their normalised form, as rows of ours.

    {"id", "category", "messages", "tools", "expect_call", "ground_truth": [{"name", "arguments"}]}

Multi-turn and executable categories have no accepted values and are not read.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge.accuracy.values import Fields


class SkippedRow(Exception):
    """The row is sound but cannot be judged; the message says why."""


def is_bfcl(row: Mapping[str, object]) -> bool:
    """Whether a row is BFCL's and not ours."""
    return "expected" not in row and ("ground_truth" in row or "expect_call" in row)


def native_row(row: Mapping[str, object]) -> dict[str, object]:
    """The same row in our form. Raises SkippedRow."""
    truth = row.get("ground_truth") or []
    if row.get("expect_call") is True and not truth:
        raise SkippedRow("any call would be right, so there is nothing to compare arguments with")
    if row.get("example_calls_valid") is False:
        raise SkippedRow("its own example call breaks the schema of its tool")
    return {
        "id": row.get("id"),
        "scenario": row.get("category"),
        "messages": row.get("messages"),
        "tools": row.get("tools"),
        "expected": [_call(call) for call in truth] if isinstance(truth, list) else truth,
    }


def _call(call: object) -> object:
    arguments = call.get("arguments") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(arguments, Mapping):
        return call  # the reader of our own form says what is wrong
    return {"name": call.get("name"), "arguments": {key: _accepted(v) for key, v in arguments.items()}}


def _accepted(values: object) -> object:
    return [_value(value) for value in values] if isinstance(values, list) else values


def _value(value: object) -> object:
    """An object in an accepted value lists accepted values of each field."""
    if isinstance(value, Mapping):
        if all(isinstance(inner, list) and inner for inner in value.values()):
            return Fields({key: tuple(_value(v) for v in inner) for key, inner in value.items()})
        return value
    return [_value(item) for item in value] if isinstance(value, list) else value
