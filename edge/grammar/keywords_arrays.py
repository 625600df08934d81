"""Keywords about arrays."""

from __future__ import annotations

from edge.grammar.branches import (
    ALL_TYPES,
    ANYTHING,
    ArrayRule,
    Branch,
    Contains,
    Demand,
    only,
)
from edge.grammar.node import NEVER, Node, Reader, left_late, not_held


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


READERS: dict[str, Reader] = {
    "items": _items,
    "prefixItems": _prefix_items,
    "minItems": _item_count(upper=False),
    "maxItems": _item_count(upper=True),
    "contains": _contains,
    "uniqueItems": _unique,
    "unevaluatedItems": left_late("unevaluatedItems"),
}

OPPOSITES: dict[str, Reader] = {
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
    "unevaluatedItems": not_held("unevaluatedItems", "array"),
}
