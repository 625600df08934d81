"""Keywords about objects."""

from __future__ import annotations

from edge.grammar.branches import (
    ALL_TYPES,
    ANYTHING,
    Branch,
    Demand,
    ObjectRule,
    Properties,
    only,
)
from edge.grammar.node import NEVER, Node, Reader, left_late, not_held


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
        if node.document.node(additional.pointer) is True and not named and not patterns:
            additional = None  # says nothing; beside names it says that there may be others
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


READERS: dict[str, Reader] = {
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
    "unevaluatedProperties": left_late("unevaluatedProperties"),
}

OPPOSITES: dict[str, Reader] = {
    "properties": _not_properties,
    "patternProperties": not_held("patternProperties", "object"),
    "additionalProperties": lambda node: (
        []
        if node.schema["additionalProperties"] is True
        else [only("object", late=("additionalProperties", node.pointer))]
    ),
    "required": _not_required,
    "minProperties": _property_count(upper=False, negated=True),
    "maxProperties": _property_count(upper=True, negated=True),
    "propertyNames": not_held("propertyNames", "object"),
    "dependentRequired": _not_dependents("dependentRequired"),
    "dependentSchemas": _not_dependents("dependentSchemas"),
    "dependencies": _not_dependents("dependencies"),
    "unevaluatedProperties": not_held("unevaluatedProperties", "object"),
}
