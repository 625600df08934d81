"""Keywords that combine schemas, and references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge.grammar.branches import (
    ANYTHING,
    Branch,
    Demand,
)
from edge.grammar.node import Node, Reader, left_late

MAX_EXCLUSIVE = 60  # options of a oneOf that are compared with each other


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


READERS: dict[str, Reader] = {
    "$ref": _ref(negated=False),
    "allOf": _all_of,
    "anyOf": _any_of("anyOf"),
    "oneOf": _one_of,
    "not": _not,
    "if": _conditional(negated=False),
    "$dynamicRef": left_late("$dynamicRef"),
    "$recursiveRef": left_late("$recursiveRef"),
    "extends": left_late("extends"),
    "disallow": left_late("disallow"),
}

OPPOSITES: dict[str, Reader] = {
    "$ref": _ref(negated=True),
    "allOf": _any_of("allOf", negated=True),
    "anyOf": _none_of,
    "oneOf": _not_one_of,
    "not": _not_not,
    "if": _conditional(negated=True),
    "$dynamicRef": lambda node: [node.late("$dynamicRef")],
    "$recursiveRef": lambda node: [node.late("$recursiveRef")],
}
