"""Checks finished values against their schema with `jsonschema`, under the draft that the schema names.

`jsonschema` decides, with these differences, which the rules share: formats are asserted; a regular expression that
Python does not know is read as ECMA-262; and what schemas in the wild carry over from other drafts is understood
(`nullable`, a boolean `exclusiveMinimum`, a list as `items`).
"""

# ruff: noqa: ANN401 - `jsonschema` hands its keywords JSON of any shape
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from edge.grammar.early import early_fault
from edge.grammar.formats import FORMATS
from edge.grammar.patterns import matches
from edge.types import Schema

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

MESSAGE_LIMIT = 300
Errors: TypeAlias = "Iterator[ValidationError]"
Keyword: TypeAlias = Callable[[Any, Any, Any, Any], Errors]


class Check:
    """The last check of values of one schema."""

    def __init__(self, schema: Schema) -> None:
        # Slow to import, and not needed to compile a schema.
        from jsonschema.validators import Draft202012Validator, validator_for

        known = validator_for(schema, default=Draft202012Validator) if isinstance(schema, Mapping) else None
        self._kind = _extended(known or Draft202012Validator)
        self._schema = schema
        self._validator = self._kind(schema)

    def fault(self, value: object) -> str | None:
        """What is wrong with a decoded value, in one line, or None."""
        from referencing.exceptions import Unresolvable

        try:
            return self._first_fault(value)
        except Unresolvable:
            pass
        try:
            # References that only work from the document's root, below an id that says otherwise.
            self._validator = self._kind(_without_ids(self._schema))
            return self._first_fault(value)
        except Unresolvable as exc:
            return f"cannot be checked: {exc}"

    def early_fault(self, text: str) -> str | None:
        """What is wrong in the start of a value's text whatever follows, or None; see `early`."""
        from referencing.exceptions import Unresolvable

        try:
            return early_fault(text, self._errors)
        except Unresolvable:
            return None

    def _errors(self, value: object) -> Errors:
        return self._validator.iter_errors(value)  # type: ignore[arg-type]

    def _first_fault(self, value: object) -> str | None:
        error = next(self._errors(value), None)
        if error is None:
            return None
        where = "".join(f"/{step}" for step in error.absolute_path)
        message = f"{where or 'value'}: {error.message}".replace("\n", " ")
        return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"


def _without_ids(schema: object) -> Any:
    if isinstance(schema, Mapping):
        return {
            key: _without_ids(value)
            for key, value in schema.items()
            if not (key in ("id", "$id") and isinstance(value, str))
        }
    return [_without_ids(item) for item in schema] if isinstance(schema, list) else schema


@lru_cache(maxsize=16)
def _extended(kind: type[Validator]) -> type[Validator]:
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    known: Mapping[str, Keyword] = kind.VALIDATORS

    def pattern(validator: Any, source: Any, value: Any, schema: Any) -> Errors:
        if isinstance(value, str) and not matches(source, value):
            yield ValidationError(f"{value!r} does not match {source!r}")

    def format_(validator: Any, name: Any, value: Any, schema: Any) -> Errors:
        if (
            isinstance(value, str)
            and isinstance(name, str)
            and name in FORMATS
            and not matches(FORMATS[name], value)
        ):
            yield ValidationError(f"{value!r} is not a {name!r}")

    def pattern_properties(validator: Any, patterns: Any, value: Any, schema: Any) -> Errors:
        if isinstance(value, dict):
            for source, below in patterns.items():
                for name, each in value.items():
                    if matches(source, name):
                        yield from validator.descend(each, below, path=name, schema_path=source)

    def additional_properties(validator: Any, below: Any, value: Any, schema: Any) -> Errors:
        if not isinstance(value, dict):
            return
        for name, each in value.items():
            if name in schema.get("properties", {}) or any(
                matches(s, name) for s in schema.get("patternProperties", {})
            ):
                continue
            if below is False:
                yield ValidationError(f"the property {name!r} is not allowed")
            else:
                yield from validator.descend(each, below, path=name)

    def type_(validator: Any, names: Any, value: Any, schema: Any) -> Errors:
        if not (value is None and schema.get("nullable") is True):
            yield from known["type"](validator, names, value, schema)

    def items(validator: Any, below: Any, value: Any, schema: Any) -> Errors:
        if not isinstance(below, list) or "prefixItems" not in known:
            yield from known["items"](validator, below, value, schema)
        elif isinstance(value, list):
            for index, each in enumerate(value):
                rest = below[index] if index < len(below) else schema.get("additionalItems", True)
                yield from validator.descend(each, rest, path=index)

    extended = extend(  # type: ignore[no-untyped-call]
        kind,
        {
            "pattern": pattern,
            "format": format_,
            "patternProperties": pattern_properties,
            "additionalProperties": additional_properties,
            "type": type_,
            "items": items,
            **{
                name: _exclusive(known, name)
                for name in ("exclusiveMinimum", "exclusiveMaximum")
                if name in known
            },
        },
    )
    return cast("type[Validator]", extended)


def _exclusive(known: Mapping[str, Keyword], keyword: str) -> Keyword:
    """The keyword with draft 4's meaning of a boolean: that the bound beside it is exclusive."""
    beside = keyword.removeprefix("exclusive").lower()

    def check(validator: Any, bound: Any, value: Any, schema: Any) -> Errors:
        if not isinstance(bound, bool):
            yield from known[keyword](validator, bound, value, schema)
        elif bound and beside in schema:
            yield from known[keyword](validator, schema[beside], value, schema)

    return check
