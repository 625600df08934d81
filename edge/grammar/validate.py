"""Checks finished arguments against their schema with `jsonschema`, under the draft that the schema names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from edge.types import JsonValue, Schema

MESSAGE_LIMIT = 300


def argument_check(schema: Schema) -> Callable[[object], str | None]:
    """A function from arguments to what is wrong with them, or None."""
    from jsonschema.validators import (
        Draft202012Validator,
        validator_for,
    )  # slow to import, not needed to compile

    if isinstance(schema, Mapping) and "$schema" in schema:
        validator = validator_for(schema, default=Draft202012Validator)(schema)
    else:
        validator = Draft202012Validator(schema)

    def check(arguments: object) -> str | None:
        error = next(validator.iter_errors(cast(JsonValue, arguments)), None)
        if error is None:
            return None
        where = "".join(f"/{step}" for step in error.absolute_path)
        return f"{where or 'arguments'}: {error.message}"[:MESSAGE_LIMIT]

    return check
