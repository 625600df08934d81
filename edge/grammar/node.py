"""A schema node while its keywords are read: the shape of their values is checked here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from edge.grammar.branches import (
    ANYTHING,
    Branch,
    Demand,
    only,
)
from edge.grammar.document import FALSE_POINTER
from edge.grammar.patterns import is_readable
from edge.grammar.regex import RegexInvalid, RegexUnsupported, parse_regex

if TYPE_CHECKING:
    from edge.grammar.expand import Expander

NEVER = Demand(FALSE_POINTER)


class Node:
    """A schema node while its keywords are read: checks the shape of their values."""

    def __init__(self, expander: Expander, pointer: str, schema: Mapping[str, object]) -> None:
        self.expander, self.pointer, self.schema = expander, pointer, schema
        self.document = expander.document

    def fail(self, keyword: str, detail: str) -> Exception:
        return self.document.fail(self.pointer, keyword, detail)

    def late(self, keyword: str) -> Branch:
        """Anything, with the keyword left to the last check."""
        return Branch(late=frozenset({(keyword, self.pointer)}))

    def count(self, keyword: str) -> int:
        value = self.schema[keyword]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
            raise self.fail(keyword, f"{value!r} is not a count")
        return int(value)

    def number(self, keyword: str) -> Decimal:
        value = self.schema[keyword]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or abs(value) == float("inf")
            or value != value
        ):
            raise self.fail(keyword, f"{value!r} is not a number")
        return Decimal(repr(value))

    def text(self, keyword: str) -> str:
        value = self.schema[keyword]
        if not isinstance(value, str):
            raise self.fail(keyword, f"{value!r} is not a string")
        return value

    def names(self, keyword: str, value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise self.fail(keyword, "a list of strings is needed")
        return tuple(dict.fromkeys(value))

    def demand(self, *steps: str | int, negated: bool = False) -> Demand:
        """The demand of the schema below."""
        pointer = self.document.child(self.pointer, *steps)
        if not isinstance(self.document.node(pointer), Mapping | bool):
            raise self.fail(str(steps[0]), "a schema, an object or a boolean, is needed")
        return Demand(pointer, negated)

    def demands(self, keyword: str, *, negated: bool = False) -> list[Demand]:
        """The demands of a list of schemas."""
        value = self.schema[keyword]
        if not isinstance(value, list | tuple) or (not value and keyword != "items"):
            raise self.fail(keyword, "a list of schemas is needed")
        return [self.demand(keyword, index, negated=negated) for index in range(len(value))]

    def mapping(self, keyword: str) -> Mapping[str, object]:
        value = self.schema[keyword]
        if not isinstance(value, Mapping):
            raise self.fail(keyword, "an object is needed")
        return value

    def pattern(self, keyword: str, source: str) -> None:
        """Refuses what is no regular expression; what only Python understands is left to the last check."""
        try:
            parse_regex(source)
        except RegexInvalid as exc:
            if not is_readable(source):
                raise self.fail(keyword, f"{source[:80]!r} is not a regular expression: {exc}") from None
        except RegexUnsupported:
            pass


Reader = Callable[[Node], list[Branch]]


def not_held(keyword: str, *types: str) -> Reader:
    """The opposite is left to the last check; only the type is known."""
    return lambda node: [only(*types, late=(keyword, node.pointer))]


def left_late(keyword: str) -> Reader:
    return lambda node: [ANYTHING] if node.schema[keyword] is True else [node.late(keyword)]
