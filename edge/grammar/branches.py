"""One way to satisfy a schema: for each JSON type what its values must satisfy, all at once.

JSON Schema's keywords speak about one type each, so most schemas are a single branch. `anyOf` and the like make
several; meeting two branches keeps what satisfies both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TypeVar

from edge.grammar.json_text import dumps
from edge.grammar.numbers import FREE as FREE_NUMBER
from edge.grammar.numbers import NumberRule
from edge.grammar.strings import FREE as FREE_STRING
from edge.grammar.strings import StringRule

T = TypeVar("T")
ALL_TYPES = frozenset(("object", "array", "string", "number", "true", "false", "null"))


@dataclass(frozen=True, slots=True)
class Demand:
    """That a value satisfies the schema node at the pointer, or that it does not."""

    pointer: str
    negated: bool = False

    def opposite(self) -> Demand:
        return Demand(self.pointer, not self.negated)


Goal = tuple[Demand, ...]  # all of them, without repetitions, in the order in which they were met


@dataclass(frozen=True, slots=True)
class Contains:
    """That between `low` and `high` items satisfy a demand."""

    item: Demand
    low: int
    high: int | None
    pointer: str


@dataclass(frozen=True, slots=True)
class ArrayRule:
    """`sources`: for each schema that speaks of items the demands on the first ones and on the rest."""

    sources: tuple[tuple[tuple[Demand, ...], Demand | None], ...] = ()
    low: int = 0
    high: int | None = None
    contains: tuple[Contains, ...] = ()

    def meet(self, other: ArrayRule) -> ArrayRule:
        """Both at once."""
        return ArrayRule(
            merged(self.sources, other.sources),
            max(self.low, other.low),
            lower(self.high, other.high),
            merged(self.contains, other.contains),
        )

    def item(self, index: int) -> Goal:
        """What the item at the index must satisfy."""
        demands = (prefix[index] if index < len(prefix) else rest for prefix, rest in self.sources)
        return goal(demand for demand in demands if demand is not None)

    @property
    def prefix_length(self) -> int:
        return max((len(prefix) for prefix, _ in self.sources), default=0)


@dataclass(frozen=True, slots=True)
class Properties:
    """What one schema says about the properties of an object."""

    named: tuple[tuple[str, Demand], ...] = ()
    patterns: tuple[tuple[str, Demand], ...] = ()
    additional: Demand | None = None


@dataclass(frozen=True, slots=True)
class ObjectRule:
    """What an object must satisfy, all at once. `names` are demands on every property name."""

    sources: tuple[Properties, ...] = ()
    required: tuple[str, ...] = ()
    low: int = 0
    high: int | None = None
    names: tuple[Demand, ...] = ()
    pointer: str = ""

    def meet(self, other: ObjectRule) -> ObjectRule:
        """Both at once."""
        return ObjectRule(
            merged(self.sources, other.sources),
            merged(self.required, other.required),
            max(self.low, other.low),
            lower(self.high, other.high),
            merged(self.names, other.names),
            self.pointer or other.pointer,
        )


FREE_ARRAY, FREE_OBJECT = ArrayRule(), ObjectRule()


@dataclass(frozen=True, slots=True)
class Branch:
    """The types allowed, and what a value of each must satisfy; or one of finitely many values."""

    types: frozenset[str] = ALL_TYPES
    string: StringRule = FREE_STRING
    number: NumberRule = FREE_NUMBER
    array: ArrayRule = FREE_ARRAY
    members: ObjectRule = FREE_OBJECT
    values: tuple[object, ...] | None = field(default=None, compare=False)
    values_key: tuple[str, ...] | None = None  # the values as text, which compare as JSON does
    late: frozenset[tuple[str, str]] = frozenset()  # (keyword, pointer) that this branch does not hold

    def meet(self, other: Branch) -> Branch | None:
        """What satisfies both, or None if that is plainly nothing."""
        if self is ANYTHING or other is ANYTHING:
            return other if self is ANYTHING else self
        met = Branch(
            self.types & other.types,
            self.string if other.string is FREE_STRING else self.string.meet(other.string),
            self.number if other.number is FREE_NUMBER else self.number.meet(other.number),
            self.array if other.array is FREE_ARRAY else self.array.meet(other.array),
            self.members if other.members is FREE_OBJECT else self.members.meet(other.members),
            *_common_values(self, other),
            self.late | other.late,
        )
        return met.narrowed()

    def narrowed(self) -> Branch | None:
        """Without types for which the bounds leave nothing; None if no type or value is left."""
        types, values, key = self.types, self.values, self.values_key
        if self.string.high is not None and self.string.low > self.string.high:
            types -= {"string"}
        if self.array.high is not None and self.array.low > self.array.high:
            types -= {"array"}
        if (
            self.members.high is not None
            and max(self.members.low, len(self.members.required)) > self.members.high
        ):
            types -= {"object"}
        if number_is_empty(self.number):
            types -= {"number"}
        if values is not None:
            values = tuple(value for value in values if self._may_be(value, types))
            key = tuple(map(value_key, values))
        if not types or values == ():
            return None
        return self if types == self.types and key == self.values_key else self._with(types, values, key)

    def _with(
        self, types: frozenset[str], values: tuple[object, ...] | None, key: tuple[str, ...] | None
    ) -> Branch:
        return replace(self, types=types, values=values, values_key=key)

    def _may_be(self, value: object, types: frozenset[str]) -> bool:
        if isinstance(value, float) and self.number.integer and not value.is_integer():
            return False
        return type_of(value) in types


ANYTHING = Branch()


def only(*types: str, late: tuple[str, str] | None = None) -> Branch:
    """Any value of the types."""
    return Branch(types=frozenset(types), late=frozenset((late,)) if late else frozenset())


def of_values(values: tuple[object, ...]) -> Branch | None:
    """One of the values."""
    types = frozenset(map(type_of, values))
    return Branch(types=types, values=values, values_key=tuple(map(value_key, values))) if values else None


def type_of(value: object) -> str:
    """The JSON type, booleans told apart."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return "array" if isinstance(value, list | tuple) else "object"


def value_key(value: object) -> str:
    """Equal for values that JSON Schema holds to be equal: 1 and 1.0, objects whatever their order."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(value_key, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(sorted(f'{dumps(key)}:{value_key(each)}' for key, each in value.items()))}}}"
    return dumps(value)


def number_is_empty(rule: NumberRule) -> bool:
    """Whether the bounds alone leave no number."""
    low, high = rule.low, rule.high
    if rule.integer and rule.fraction:
        return True
    if low is None or high is None:
        return False
    return low > high or (low == high and (rule.low_open or rule.high_open or _no_integer(rule, low)))


def _no_integer(rule: NumberRule, value: Decimal) -> bool:
    return rule.integer and value != value.to_integral_value()


def goal(demands: Iterable[Demand]) -> Goal:
    """The demands without repetitions."""
    return tuple(dict.fromkeys(demands))


def merged(first: tuple[T, ...], second: tuple[T, ...]) -> tuple[T, ...]:
    """Both without repetitions, in order."""
    return tuple(dict.fromkeys(first + second)) if first and second else first or second


def lower(first: int | None, second: int | None) -> int | None:
    """The smaller of two upper bounds."""
    return second if first is None else first if second is None else min(first, second)


def _common_values(first: Branch, second: Branch) -> tuple[tuple[object, ...] | None, tuple[str, ...] | None]:
    if first.values is None or second.values is None:
        chosen = second if first.values is None else first
        return chosen.values, chosen.values_key
    allowed = set(second.values_key or ())
    values = tuple(value for value in first.values if value_key(value) in allowed)
    return values, tuple(map(value_key, values))
