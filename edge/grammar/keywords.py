"""What each keyword of JSON Schema demands, and what its opposite demands, as branches.

Each keyword has a function from the node to branches of which a value satisfies at least one. What a branch cannot
hold exactly it lists as late: then the branches allow more, never less, and the check of the finished text decides.
Keywords that are not in the tables are annotations, as JSON Schema has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from edge.grammar.branches import (
    ALL_TYPES,
    ANYTHING,
    ArrayRule,
    Branch,
    Contains,
    Demand,
    ObjectRule,
    Properties,
    of_values,
    only,
    type_of,
    value_key,
)
from edge.grammar.document import FALSE_POINTER
from edge.grammar.formats import FORMATS
from edge.grammar.numbers import NumberRule
from edge.grammar.patterns import is_readable
from edge.grammar.regex import RegexInvalid, RegexUnsupported, parse_regex
from edge.grammar.strings import StringRule, Wanted

if TYPE_CHECKING:
    from edge.grammar.expand import Expander

NEVER = Demand(FALSE_POINTER)
MAX_EXCLUSIVE = 60  # options of a oneOf that are compared with each other
TYPES: dict[str, Branch] = {
    "object": only("object"),
    "array": only("array"),
    "string": only("string"),
    "number": only("number"),
    "integer": Branch(types=frozenset({"number"}), number=NumberRule(integer=True)),
    "boolean": only("true", "false"),
    "null": only("null"),
}


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


# --- numbers and strings ----------------------------------------------------------------------------------------


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


# --- arrays -----------------------------------------------------------------------------------------------------


def _array(**fields: object) -> list[Branch]:
    return [Branch(array=ArrayRule(**fields))]  # type: ignore[arg-type]


def _items(node: Node) -> list[Branch]:
    if isinstance(node.schema["items"], list | tuple):
        prefix = tuple(node.demands("items"))
        rest = node.demand("additionalItems") if "additionalItems" in node.schema else None
        return _array(sources=((prefix, rest),))
    before = tuple(node.demands("prefixItems")) if "prefixItems" in node.schema else ()
    return _array(sources=((before, node.demand("items")),))


def _prefix_items(node: Node) -> list[Branch]:
    return (
        [ANYTHING]
        if "items" in node.schema
        else _array(sources=((tuple(node.demands("prefixItems")), None),))
    )


def _not_items(keyword: str) -> Reader:
    def read(node: Node) -> list[Branch]:
        if (
            keyword == "items" and isinstance(node.schema["items"], list | tuple)
        ) or keyword == "prefixItems":
            offenders = node.demands(keyword, negated=True)
            arrays = frozenset({"array"})
            return [
                Branch(types=arrays, array=ArrayRule(((_at(index, demand), None),), low=index + 1))
                for index, demand in enumerate(offenders)
            ]
        offender = Contains(node.demand("items", negated=True), 1, None, node.pointer)
        late = frozenset({("items", node.pointer)}) if "prefixItems" in node.schema else frozenset()
        return [Branch(types=frozenset({"array"}), array=ArrayRule(low=1, contains=(offender,)), late=late)]

    def _at(index: int, demand: Demand) -> tuple[Demand, ...]:
        return (*([NEVER.opposite()] * index), demand)

    return read


def _item_count(*, upper: bool, negated: bool = False) -> Reader:
    keyword = "maxItems" if upper else "minItems"

    def read(node: Node) -> list[Branch]:
        count = node.count(keyword)
        types = frozenset({"array"}) if negated else ALL_TYPES
        if upper != negated:
            if (high := count - 1 if negated else count) < 0:
                return []
            return [Branch(types=types, array=ArrayRule(high=high))]
        return [Branch(types=types, array=ArrayRule(low=count + negated))]

    return read


def _contains(node: Node) -> list[Branch]:
    low = node.count("minContains") if "minContains" in node.schema else 1
    high = node.count("maxContains") if "maxContains" in node.schema else None
    if high is not None and high < low:
        return [Branch(types=ALL_TYPES - {"array"})]
    if low == 0 and high is None:
        return [ANYTHING]
    return _array(contains=(Contains(node.demand("contains"), low, high, node.pointer),), low=low)


def _not_contains(node: Node) -> list[Branch]:
    if "minContains" in node.schema or "maxContains" in node.schema:
        return [only("array", late=("contains", node.pointer))]
    nothing = node.demand("contains", negated=True)
    return [Branch(types=frozenset({"array"}), array=ArrayRule(sources=(((), nothing),)))]


def _unique(node: Node) -> list[Branch]:
    if node.schema["uniqueItems"] is not True:
        return [ANYTHING]
    short = Branch(array=ArrayRule(high=1))
    return (
        [Branch(late=frozenset({("uniqueItems", node.pointer)}))]
        if node.schema.get("maxItems", 2) != 1
        else [short]
    )


# --- objects ----------------------------------------------------------------------------------------------------


def _object(types: frozenset[str] = ALL_TYPES, **fields: object) -> list[Branch]:
    return [Branch(types=types, members=ObjectRule(**fields))]  # type: ignore[arg-type]


OBJECT = frozenset({"object"})


def _properties(node: Node) -> list[Branch]:
    """The three keywords about properties speak together; the first that is there reads all."""
    named: tuple[tuple[str, Demand], ...] = ()
    patterns: list[tuple[str, Demand]] = []
    additional: Demand | None = None
    if "properties" in node.schema:
        named = tuple((name, node.demand("properties", name)) for name in node.mapping("properties"))
    for source in node.mapping("patternProperties") if "patternProperties" in node.schema else ():
        node.pattern("patternProperties", source)
        patterns.append((source, node.demand("patternProperties", source)))
    if "additionalProperties" in node.schema:
        additional = node.demand("additionalProperties")
        if node.document.node(additional.pointer) is True:
            additional = None
    if not named and not patterns and additional is None:
        return [ANYTHING]
    source_rule = Properties(named, tuple(patterns), additional)
    return _object(sources=(source_rule,), pointer=node.pointer)


def _properties_once(keyword: str) -> Reader:
    keywords = ("properties", "patternProperties", "additionalProperties")
    earlier = keywords[: keywords.index(keyword)]

    def read(node: Node) -> list[Branch]:
        return [ANYTHING] if any(other in node.schema for other in earlier) else _properties(node)

    return read


def _not_properties(node: Node) -> list[Branch]:
    return [
        branch
        for name in node.mapping("properties")
        for branch in _object(
            OBJECT,
            sources=(Properties(((name, node.demand("properties", name, negated=True)),)),),
            required=(name,),
        )
    ]


def _not_held(keyword: str, *types: str) -> Reader:
    """The opposite is left to the last check; only the type is known."""
    return lambda node: [only(*types, late=(keyword, node.pointer))]


def _required(node: Node) -> list[Branch]:
    value = node.schema["required"]
    if isinstance(value, bool):  # draft 3 wrote it into the property; later drafts give it no meaning there
        return [ANYTHING]
    return _object(required=node.names("required", value), pointer=node.pointer)


def _not_required(node: Node) -> list[Branch]:
    names = node.names("required", node.schema["required"])
    return [branch for name in names for branch in _object(OBJECT, sources=(Properties(((name, NEVER),)),))]


def _property_count(*, upper: bool, negated: bool = False) -> Reader:
    keyword = "maxProperties" if upper else "minProperties"

    def read(node: Node) -> list[Branch]:
        count = node.count(keyword)
        types = OBJECT if negated else ALL_TYPES
        if upper != negated:
            high = count - 1 if negated else count
            return _object(types, high=high, pointer=node.pointer) if high >= 0 else []
        return _object(types, low=count + negated, pointer=node.pointer)

    return read


def _property_names(node: Node) -> list[Branch]:
    return _object(names=(node.demand("propertyNames"),), pointer=node.pointer)


def _absent(name: str) -> list[Branch]:
    return _object(sources=(Properties(((name, NEVER),)),))


def _dependents(keyword: str) -> Reader:
    def read(node: Node) -> list[Branch]:
        out = [ANYTHING]
        for name, value in node.mapping(keyword).items():
            if isinstance(value, str):
                value = [value]  # draft 3
            if isinstance(value, list | tuple):
                with_it = _object(OBJECT, required=(name, *node.names(keyword, value)), pointer=node.pointer)
            else:
                present = _object(OBJECT, required=(name,), pointer=node.pointer)
                with_it = node.expander.product(
                    present, node.expander.alternatives(node.demand(keyword, name))
                )
            out = node.expander.product(out, [*with_it, *_absent(name)])
        return out

    return read


def _not_dependents(keyword: str) -> Reader:
    def read(node: Node) -> list[Branch]:
        out: list[Branch] = []
        for name, value in node.mapping(keyword).items():
            present = _object(OBJECT, required=(name,))
            if isinstance(value, list | tuple):
                lacking = [branch for other in node.names(keyword, value) for branch in _absent(other)]
            else:
                lacking = node.expander.alternatives(node.demand(keyword, name, negated=True))
            out += node.expander.product(present, lacking)
        return out

    return read


# --- combinations -----------------------------------------------------------------------------------------------


def _all_of(node: Node) -> list[Branch]:
    return node.expander.all_of(node.demands("allOf"))


def _any_of(keyword: str, *, negated: bool = False) -> Reader:
    return lambda node: [
        branch
        for demand in node.demands(keyword, negated=negated)
        for branch in node.expander.alternatives(demand)
    ]


def _none_of(node: Node) -> list[Branch]:
    return node.expander.all_of(node.demands("anyOf", negated=True))


def _one_of(node: Node) -> list[Branch]:
    """Each option without the others; others that cannot hold at the same time need no exclusion."""
    expander = node.expander
    demands = node.demands("oneOf")
    if len(demands) > MAX_EXCLUSIVE:
        return [replace(each, late=each.late | {("oneOf", node.pointer)}) for each in _any_of("oneOf")(node)]
    options = [expander.alternatives(demand) for demand in demands]
    out: list[Branch] = []
    for index, option in enumerate(options):
        found = list(option)
        for other, demand in enumerate(demands):
            if other != index and expander.overlap(demands[index], demand):
                found = expander.product(found, expander.alternatives(demand.opposite()))
        out += found
    return out


def _not_one_of(node: Node) -> list[Branch]:
    demands = node.demands("oneOf")
    out = node.expander.all_of([demand.opposite() for demand in demands])
    for index, first in enumerate(demands):
        for second in demands[index + 1 :]:
            out += node.expander.all_of([first, second])
    return out


def _not(node: Node) -> list[Branch]:
    return node.expander.alternatives(node.demand("not", negated=True))


def _not_not(node: Node) -> list[Branch]:
    return node.expander.alternatives(node.demand("not"))


def _conditional(*, negated: bool) -> Reader:
    def read(node: Node) -> list[Branch]:
        out: list[Branch] = []
        for keyword, holds in (("then", True), ("else", False)):
            condition = node.demand("if", negated=not holds)
            if keyword in node.schema:
                out += node.expander.all_of([condition, node.demand(keyword, negated=negated)])
            elif not negated:
                out += node.expander.alternatives(condition)
        return out

    def plain(node: Node) -> list[Branch]:
        if "then" in node.schema or "else" in node.schema:
            return read(node)
        return [] if negated else [ANYTHING]

    return plain


def _ref(*, negated: bool) -> Reader:
    def read(node: Node) -> list[Branch]:
        pointer = node.document.target(node.pointer, node.schema["$ref"])
        if not isinstance(node.document.node(pointer), Mapping | bool):
            raise node.fail("$ref", f"{node.schema['$ref']!r} is not a schema")
        return node.expander.alternatives(Demand(pointer, negated))

    return read


def _late(keyword: str) -> Reader:
    return lambda node: [ANYTHING] if node.schema[keyword] is True else [node.late(keyword)]


READERS: dict[str, Reader] = {
    "$ref": _ref(negated=False),
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
    "items": _items,
    "prefixItems": _prefix_items,
    "minItems": _item_count(upper=False),
    "maxItems": _item_count(upper=True),
    "contains": _contains,
    "uniqueItems": _unique,
    "properties": _properties_once("properties"),
    "patternProperties": _properties_once("patternProperties"),
    "additionalProperties": _properties_once("additionalProperties"),
    "required": _required,
    "minProperties": _property_count(upper=False),
    "maxProperties": _property_count(upper=True),
    "propertyNames": _property_names,
    "dependentRequired": _dependents("dependentRequired"),
    "dependentSchemas": _dependents("dependentSchemas"),
    "dependencies": _dependents("dependencies"),
    "allOf": _all_of,
    "anyOf": _any_of("anyOf"),
    "oneOf": _one_of,
    "not": _not,
    "if": _conditional(negated=False),
    "unevaluatedItems": _late("unevaluatedItems"),
    "unevaluatedProperties": _late("unevaluatedProperties"),
    "$dynamicRef": _late("$dynamicRef"),
    "$recursiveRef": _late("$recursiveRef"),
    "extends": _late("extends"),
    "disallow": _late("disallow"),
}

OPPOSITES: dict[str, Reader] = {
    "$ref": _ref(negated=True),
    "type": _not_type,
    "enum": _not_enum("enum"),
    "const": _not_enum("const"),
    "minimum": _bound("minimum", upper=False, exclusive=False, negated=True),
    "maximum": _bound("maximum", upper=True, exclusive=False, negated=True),
    "exclusiveMinimum": _bound("exclusiveMinimum", upper=False, exclusive=True, negated=True),
    "exclusiveMaximum": _bound("exclusiveMaximum", upper=True, exclusive=True, negated=True),
    "multipleOf": _not_held("multipleOf", "number"),
    "divisibleBy": _not_held("divisibleBy", "number"),
    "minLength": _length(upper=False, negated=True),
    "maxLength": _length(upper=True, negated=True),
    "pattern": _pattern(negated=True),
    "format": _format(negated=True),
    "items": _not_items("items"),
    "prefixItems": _not_items("prefixItems"),
    "additionalItems": lambda node: (
        [only("array", late=("additionalItems", node.pointer))]
        if isinstance(node.schema.get("items"), list | tuple)
        else []
    ),
    "minItems": _item_count(upper=False, negated=True),
    "maxItems": _item_count(upper=True, negated=True),
    "contains": _not_contains,
    "uniqueItems": lambda node: (
        [only("array", late=("uniqueItems", node.pointer))] if node.schema["uniqueItems"] is True else []
    ),
    "properties": _not_properties,
    "patternProperties": _not_held("patternProperties", "object"),
    "additionalProperties": lambda node: (
        []
        if node.schema["additionalProperties"] is True
        else [only("object", late=("additionalProperties", node.pointer))]
    ),
    "required": _not_required,
    "minProperties": _property_count(upper=False, negated=True),
    "maxProperties": _property_count(upper=True, negated=True),
    "propertyNames": _not_held("propertyNames", "object"),
    "dependentRequired": _not_dependents("dependentRequired"),
    "dependentSchemas": _not_dependents("dependentSchemas"),
    "dependencies": _not_dependents("dependencies"),
    "allOf": _any_of("allOf", negated=True),
    "anyOf": _none_of,
    "oneOf": _not_one_of,
    "not": _not_not,
    "if": _conditional(negated=True),
    "unevaluatedItems": _not_held("unevaluatedItems", "array"),
    "unevaluatedProperties": _not_held("unevaluatedProperties", "object"),
    "$dynamicRef": lambda node: [node.late("$dynamicRef")],
    "$recursiveRef": lambda node: [node.late("$recursiveRef")],
}
