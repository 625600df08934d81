"""Keywords about types, fixed values, numbers and strings."""

from __future__ import annotations

from decimal import Decimal

from edge.grammar.branches import (
    ALL_TYPES,
    ANYTHING,
    Branch,
    of_values,
    only,
    type_of,
    value_key,
)
from edge.grammar.formats import FORMATS
from edge.grammar.node import Node, Reader, not_held
from edge.grammar.numbers import NumberRule
from edge.grammar.strings import StringRule, Wanted

TYPES: dict[str, Branch] = {
    "object": only("object"),
    "array": only("array"),
    "string": only("string"),
    "number": only("number"),
    "integer": Branch(types=frozenset({"number"}), number=NumberRule(integer=True)),
    "boolean": only("true", "false"),
    "null": only("null"),
}


def _type(node: Node) -> list[Branch]:
    value = node.schema["type"]
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise node.fail("type", f"{value!r} is not a type name or a list of them")
    if node.schema.get("nullable") is True:
        names = [*names, "null"]
    if "any" in names and node.document.dialect.find("draft-03") >= 0:
        return [ANYTHING]
    if unknown := [name for name in names if name not in TYPES]:
        raise node.fail("type", f"{unknown[0]!r} is not one of {', '.join(TYPES)}")
    types = frozenset(name for each in names for name in TYPES[each].types)
    is_integer = "integer" in names and "number" not in names
    return [Branch(types=types, number=NumberRule(integer=is_integer)) if is_integer else Branch(types=types)]


def _not_type(node: Node) -> list[Branch]:
    branch = _type(node)[0]
    out = [Branch(types=rest)] if (rest := ALL_TYPES - branch.types) else []
    if branch.number.integer:
        out.append(Branch(types=frozenset({"number"}), number=NumberRule(fraction=True)))
    return out


def _values(node: Node, keyword: str) -> tuple[object, ...]:
    value = node.schema[keyword]
    if keyword == "const":
        return (value,)
    if not isinstance(value, list | tuple):
        raise node.fail("enum", "a list of values is needed")
    return tuple({value_key(each): each for each in reversed(value)}.values())[::-1]


def _enum(keyword: str) -> Reader:
    def read(node: Node) -> list[Branch]:
        branch = of_values(_values(node, keyword))
        return [branch] if branch else []

    return read


def _not_enum(keyword: str) -> Reader:
    def read(node: Node) -> list[Branch]:
        values = _values(node, keyword)
        types = ALL_TYPES - {kind for kind in map(type_of, values) if kind in ("null", "true", "false")}
        words = tuple(value for value in values if isinstance(value, str))
        numbers = tuple(Decimal(repr(value)) for value in values if type_of(value) == "number")
        compound = any(type_of(value) in ("array", "object") for value in values)
        late = frozenset({(keyword, node.pointer)}) if compound else frozenset()
        return [
            Branch(
                types=types, string=StringRule(excluded=words), number=NumberRule(excluded=numbers), late=late
            )
        ]

    return read


def _bound(keyword: str, *, upper: bool, exclusive: bool, negated: bool = False) -> Reader:
    """The numbers on one side of the bound; negated, those on the other."""

    def read(node: Node) -> list[Branch]:
        if isinstance(node.schema[keyword], bool):  # draft 4's exclusiveMinimum; `minimum` reads it
            return [] if negated else [ANYTHING]
        value = node.number(keyword)
        is_open = exclusive or node.schema.get("exclusiveMaximum" if upper else "exclusiveMinimum") is True
        is_open, above = (not is_open, not upper) if negated else (is_open, upper)
        rule = NumberRule(high=value, high_open=is_open) if above else NumberRule(low=value, low_open=is_open)
        return [Branch(types=frozenset({"number"}) if negated else ALL_TYPES, number=rule)]

    return read


def _multiple(keyword: str) -> Reader:
    def read(node: Node) -> list[Branch]:
        value = node.number(keyword)
        if value <= 0:
            raise node.fail(keyword, f"{value} is not above 0")
        return [Branch(number=NumberRule(multiples=((value, node.pointer),)))]

    return read


def _length(*, upper: bool, negated: bool = False) -> Reader:
    keyword = "maxLength" if upper else "minLength"

    def read(node: Node) -> list[Branch]:
        count = node.count(keyword)
        types = frozenset({"string"}) if negated else ALL_TYPES
        if upper != negated:
            high = count - 1 if negated else count
            if high < 0:
                return []
            return [Branch(types=types, string=StringRule(high=high, length_pointer=node.pointer))]
        return [Branch(types=types, string=StringRule(low=count + negated, length_pointer=node.pointer))]

    return read


def _wanted(node: Node, keyword: str, source: str, negated: bool) -> list[Branch]:
    types = frozenset({"string"}) if negated else ALL_TYPES
    return [Branch(types=types, string=StringRule(wanted=(Wanted(source, negated, keyword, node.pointer),)))]


def _pattern(*, negated: bool) -> Reader:
    def read(node: Node) -> list[Branch]:
        source = node.text("pattern")
        node.pattern("pattern", source)
        return _wanted(node, "pattern", source, negated)

    return read


def _format(*, negated: bool) -> Reader:
    def read(node: Node) -> list[Branch]:
        name = node.schema["format"]
        if not isinstance(name, str) or name not in FORMATS:
            return [] if negated else [ANYTHING]
        if negated:  # our expressions allow a little less than the formats, so their opposite is not exact
            return [only("string", late=("format", node.pointer))]
        return _wanted(node, "format", FORMATS[name], negated)

    return read


READERS: dict[str, Reader] = {
    "type": _type,
    "enum": _enum("enum"),
    "const": _enum("const"),
    "minimum": _bound("minimum", upper=False, exclusive=False),
    "maximum": _bound("maximum", upper=True, exclusive=False),
    "exclusiveMinimum": _bound("exclusiveMinimum", upper=False, exclusive=True),
    "exclusiveMaximum": _bound("exclusiveMaximum", upper=True, exclusive=True),
    "multipleOf": _multiple("multipleOf"),
    "divisibleBy": _multiple("divisibleBy"),
    "minLength": _length(upper=False),
    "maxLength": _length(upper=True),
    "pattern": _pattern(negated=False),
    "format": _format(negated=False),
}

OPPOSITES: dict[str, Reader] = {
    "type": _not_type,
    "enum": _not_enum("enum"),
    "const": _not_enum("const"),
    "minimum": _bound("minimum", upper=False, exclusive=False, negated=True),
    "maximum": _bound("maximum", upper=True, exclusive=False, negated=True),
    "exclusiveMinimum": _bound("exclusiveMinimum", upper=False, exclusive=True, negated=True),
    "exclusiveMaximum": _bound("exclusiveMaximum", upper=True, exclusive=True, negated=True),
    "multipleOf": not_held("multipleOf", "number"),
    "divisibleBy": not_held("divisibleBy", "number"),
    "minLength": _length(upper=False, negated=True),
    "maxLength": _length(upper=True, negated=True),
    "pattern": _pattern(negated=True),
    "format": _format(negated=True),
}
