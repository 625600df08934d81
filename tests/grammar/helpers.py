"""Short forms that the grammar tests share."""

from __future__ import annotations

import json

from edge.errors import UnsupportedSchema
from edge.grammar import CompiledSchema, compile_schema
from edge.types import Schema


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def follows(compiled: CompiledSchema, text: str) -> bool:
    """Whether the rules accept the whole text; the last check is not asked."""
    place = compiled.matcher.start.after(text)
    return place is not None and place.is_complete


def holds(schema: Schema, value: object) -> bool:
    """Whether rules and last check accept a value as json.dumps writes it."""
    compiled = compile_schema(schema)
    return follows(compiled, dumps(value)) and compiled.validate(value) is None


def rules_hold(schema: Schema, value: object) -> bool:
    """Whether the rules alone accept the value."""
    return follows(compile_schema(schema), dumps(value))


def compiled_or_none(schema: object) -> CompiledSchema | None:
    """None for a schema that nothing satisfies; any other refusal is a failure."""
    try:
        return compile_schema(schema)
    except UnsupportedSchema as exc:
        if "nothing can satisfy" not in exc.detail:
            raise
        return None
