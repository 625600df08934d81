"""From demands to branches: every way in which a value can satisfy all demands of a goal.

Work is bounded: where a combination would make too many branches it is left to the last check and listed as late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

from edge.grammar.branches import ANYTHING, Branch, Demand, Goal, ObjectRule, goal, type_of
from edge.grammar.document import Document
from edge.grammar.keywords import OPPOSITES, READERS
from edge.grammar.node import Node
from edge.grammar.numbers import number_texts
from edge.grammar.patterns import matches
from edge.grammar.strings import StringRule, string_language

MAX_BRANCHES = 64
MAX_OPTIONS = 1_000  # of one anyOf
MAX_NESTING = 40  # combinations within combinations
PROBE_DEPTH = 6  # levels that are looked into when asking whether two options can hold together


class TooManyBranches(Exception):
    """The combination is not multiplied out."""


class Expander:
    """Reads demands of one document, each once."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._alternatives: dict[Demand, list[Branch]] = {}
        self._open: dict[Demand, None] = {}
        self._branches: dict[Goal, tuple[Branch, ...]] = {}
        self._overlaps: dict[tuple[Demand, Demand], bool] = {}

    def branches(self, wanted: Goal) -> tuple[Branch, ...]:
        """The ways to satisfy the goal; none if it cannot be satisfied."""
        if wanted not in self._branches:
            found = [ANYTHING]
            late: set[tuple[str, str]] = set()
            for demand in wanted:
                try:
                    found = self.product(found, self.alternatives(demand))
                except TooManyBranches:
                    late.add(("allOf", demand.pointer))
            kept = (self._fitting(_with_late(branch, late)) for branch in found)
            self._branches[wanted] = tuple(dict.fromkeys(branch for branch in kept if branch is not None))
        return self._branches[wanted]

    def alternatives(self, demand: Demand) -> list[Branch]:
        """The ways to satisfy one demand."""
        known = self._alternatives.get(demand)
        if known is None:
            if demand in self._open:
                raise self.document.fail(demand.pointer, "$ref", "leads back to itself")
            if len(self._open) >= MAX_NESTING:
                raise self.document.fail(
                    demand.pointer, "schema", f"more than {MAX_NESTING} combinations nested"
                )
            self._open[demand] = None
            try:
                known = self._alternatives[demand] = self._read(demand)
            finally:
                del self._open[demand]
        return known

    def all_of(self, demands: Iterable[Demand]) -> list[Branch]:
        """The ways to satisfy all demands."""
        found = [ANYTHING]
        for demand in demands:
            found = self.product(found, self.alternatives(demand))
        return found

    @staticmethod
    def product(first: list[Branch], second: list[Branch]) -> list[Branch]:
        """What satisfies a branch of each list. Raises TooManyBranches."""
        if len(first) > 1 and len(second) > 1 and len(first) * len(second) > MAX_BRANCHES * 4:
            raise TooManyBranches
        met = (left.meet(right) for left in first for right in second)
        found = list(dict.fromkeys(branch for branch in met if branch is not None))
        if len(found) > MAX_BRANCHES and len(found) > max(len(first), len(second)):
            raise TooManyBranches
        return found

    def overlap(self, first: Demand, second: Demand) -> bool:
        """Whether one value may satisfy both demands; False only if that is certain."""
        key = (first, second) if first.pointer < second.pointer else (second, first)
        if key not in self._overlaps:
            try:
                both = self.product(self.alternatives(first), self.alternatives(second))
                self._overlaps[key] = any(self.possible(branch, PROBE_DEPTH) for branch in both)
            except TooManyBranches:
                self._overlaps[key] = True
        return self._overlaps[key]

    def possible(self, branch: Branch, depth: int) -> bool:
        """Whether a value of the branch may exist, looking so many levels deep; False only if that is certain."""
        if branch.values is not None:
            return any(self.fits(branch, value) for value in branch.values)
        checks = {
            "string": lambda: not string_is_empty(branch.string),
            "number": lambda: number_texts(branch.number)[0] is not None,
            "object": lambda: self._object_possible(branch.members, depth),
            "array": lambda: self._array_possible(branch, depth),
        }
        return any(kind not in checks or checks[kind]() for kind in branch.types)

    def _goal_possible(self, wanted: Goal, depth: int) -> bool:
        return depth <= 0 or any(self.possible(branch, depth - 1) for branch in self.branches(wanted))

    def _object_possible(self, rule: ObjectRule, depth: int) -> bool:
        return all(self._goal_possible(name_goal(rule, name), depth) for name in rule.required)

    def _array_possible(self, branch: Branch, depth: int) -> bool:
        return all(
            self._goal_possible(branch.array.item(index), depth) for index in range(min(branch.array.low, 4))
        )

    def _read(self, demand: Demand) -> list[Branch]:
        schema = self.document.node(demand.pointer)
        if isinstance(schema, bool):
            return [ANYTHING] if schema is not demand.negated else []
        assert isinstance(schema, Mapping)
        node = Node(self, demand.pointer, schema)
        keywords = self._keywords(schema, OPPOSITES if demand.negated else READERS)
        return self._read_opposite(node, keywords) if demand.negated else self._read_all(node, keywords)

    def _keywords(self, schema: Mapping[str, object], known: Mapping[str, object]) -> list[str]:
        if "$ref" in schema and self.document.ignores_ref_siblings:
            return ["$ref"]
        return [keyword for keyword in known if keyword in schema]

    def _read_all(self, node: Node, keywords: list[str]) -> list[Branch]:
        found = [ANYTHING]
        for keyword in keywords:
            try:
                found = self.product(found, _simplified(READERS[keyword](node)))
            except TooManyBranches:
                found = self.product(found, [node.late(keyword)])
        return found

    @staticmethod
    def _read_opposite(node: Node, keywords: list[str]) -> list[Branch]:
        """A value breaks a schema if it breaks one of its keywords."""
        found: list[Branch] = []
        for keyword in keywords:
            try:
                found += OPPOSITES[keyword](node)
            except TooManyBranches:
                found.append(node.late(keyword))
        if "nullable" in node.schema and node.schema["nullable"] is True and "type" not in node.schema:
            return found
        return _simplified(found)

    def _fitting(self, branch: Branch | None) -> Branch | None:
        """The branch with only those of its fixed values that satisfy all the rest."""
        if branch is None or branch.values is None:
            return branch
        values = tuple(value for value in branch.values if self.fits(branch, value))
        return replace(branch, values=values) if values else None

    def fits(self, branch: Branch, value: object) -> bool:
        """Whether a fixed value satisfies the branch, items and properties included."""
        kind = type_of(value)
        if kind not in branch.types:
            return False
        match value:
            case str():
                return string_fits(branch.string, value)
            case bool() | None:
                return True
            case int() | float():
                return _number_fits(branch, Decimal(repr(value)))
            case list() | tuple():
                return self._array_fits(branch, value)
            case _:
                assert isinstance(value, Mapping)
                return self._object_fits(branch.members, value)

    def goal_fits(self, wanted: Goal, value: object) -> bool:
        """Whether a fixed value satisfies the goal."""
        branches = self.branches(wanted)
        return any(
            (branch.values is None or any(value == each for each in branch.values))
            and self.fits(branch, value)
            for branch in branches
        )

    def _array_fits(self, branch: Branch, value: list[object] | tuple[object, ...]) -> bool:
        rule = branch.array
        if len(value) < rule.low or (rule.high is not None and len(value) > rule.high):
            return False
        for demand in rule.contains:
            hits = sum(self.goal_fits((demand.item,), item) for item in value)
            if hits < demand.low or (demand.high is not None and hits > demand.high):
                return False
        return all(self.goal_fits(rule.item(index), item) for index, item in enumerate(value))

    def _object_fits(self, rule: ObjectRule, value: Mapping[str, object]) -> bool:
        if len(value) < rule.low or (rule.high is not None and len(value) > rule.high):
            return False
        if any(name not in value for name in rule.required):
            return False
        if rule.names and not all(self.goal_fits(rule.names, name) for name in value):
            return False
        return all(self.goal_fits(name_goal(rule, name), each) for name, each in value.items())


def name_goal(rule: ObjectRule, name: str) -> Goal:
    """What the value of the property of that name must satisfy."""
    demands: list[Demand] = []
    for source in rule.sources:
        mine = [demand for key, demand in source.named if key == name]
        mine += [demand for pattern, demand in source.patterns if matches(pattern, name)]
        if not mine and source.additional is not None:
            mine = [source.additional]
        demands += mine
    return goal(demands)


def string_is_empty(rule: StringRule) -> bool:
    """Whether no string satisfies the rule."""
    language = string_language(rule)
    return language is not None and language.is_empty


def string_fits(rule: StringRule, text: str) -> bool:
    """Whether the text satisfies the rule."""
    if len(text) < rule.low or (rule.high is not None and len(text) > rule.high) or text in rule.excluded:
        return False
    return all(matches(wanted.source, text) != wanted.negated for wanted in rule.wanted)


def _number_fits(branch: Branch, value: Decimal) -> bool:
    rule = branch.number
    if rule.low is not None and (value < rule.low or (rule.low_open and value == rule.low)):
        return False
    if rule.high is not None and (value > rule.high or (rule.high_open and value == rule.high)):
        return False
    whole = value == value.to_integral_value()
    if (rule.integer and not whole) or (rule.fraction and whole) or value in rule.excluded:
        return False
    return all(value % of == 0 for of, _ in rule.multiples)


def _simplified(branches: list[Branch]) -> list[Branch]:
    if len(branches) > MAX_OPTIONS:
        raise TooManyBranches
    return [ANYTHING] if ANYTHING in branches else branches


def _with_late(branch: Branch, late: set[tuple[str, str]]) -> Branch:
    return replace(branch, late=branch.late | late) if late else branch
