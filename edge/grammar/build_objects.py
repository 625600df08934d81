"""Rules for objects: known properties in schema order, then others; required ones, and how many in all.

A place in an object is (properties still to come, members so far). Each place is one rule, so an object with many
optional properties stays linear in size. Members are counted only as far as a bound needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

from edge.grammar.automaton import (
    EVERYTHING,
    Automaton,
    TooLarge,
    both,
    either,
    length_automaton,
    negation,
    regex_automaton,
    words_automaton,
)
from edge.grammar.branches import Goal, ObjectRule, goal
from edge.grammar.expand import name_goal
from edge.grammar.json_text import dumps
from edge.grammar.regex import RegexInvalid, RegexUnsupported, parse_regex
from edge.grammar.rules import EMPTY, Lit, Ref, Rule, alt, seq
from edge.grammar.strings import string_language

if TYPE_CHECKING:
    from edge.grammar.build import Builder

MAX_PLACES = 5_000
MAX_PATTERNS = 4  # of patternProperties in one object: keys are told apart by which of them they match
# Objects with up to so many known properties take them in any order. Measured by benchmarks/grammar_order.py: five
# cost one percent of the forced text and hardly any size; six start to show.
ANY_ORDER = 5


@dataclass(frozen=True, slots=True)
class Slot:
    """A known property: its text `"name": value` as a rule."""

    member: Rule
    required: bool


def object_rule(builder: Builder, rule: ObjectRule) -> Rule:
    """The object's text, braces included."""
    names = known_names(rule)
    possible = [
        name
        for name in names
        if _name_allowed(builder, rule, name) and builder.expander.branches(name_goal(rule, name))
    ]
    if not set(rule.required) <= set(possible):
        return Ref("never")
    slots = [Slot(_member(builder, name, name_goal(rule, name)), name in rule.required) for name in possible]
    return _Members(builder, slots, _others(builder, rule, names), rule).rule()


def known_names(rule: ObjectRule) -> list[str]:
    """The properties that the schema names, in the order in which it does; then those that it only requires."""
    named = (name for source in rule.sources for name, _ in source.named)
    return list(dict.fromkeys((*named, *rule.required)))


def _name_allowed(builder: Builder, rule: ObjectRule, name: str) -> bool:
    return not rule.names or builder.expander.goal_fits(rule.names, name)


def _member(builder: Builder, name: str, wanted: Goal) -> Rule:
    plain = dumps(name)
    key: Rule = Lit(plain + ": ")
    return builder.named("member", seq(key, builder.goal(wanted)))


def _others(builder: Builder, rule: ObjectRule, names: list[str]) -> Rule | None:
    """A member whose name is none of the known ones; None if there can be none."""
    if builder.declared_only and _names_without_others(rule):
        return None
    patterns = list(dict.fromkeys(pattern for source in rule.sources for pattern, _ in source.patterns))
    late = builder.late
    try:
        if len(patterns) > MAX_PATTERNS:
            raise TooLarge("too many expressions to tell names apart")
        automata = [regex_automaton(parse_regex(pattern)) for pattern in patterns]
    except (TooLarge, RegexInvalid, RegexUnsupported):
        automata, patterns = [], []
        late.add(("patternProperties", rule.pointer))
        rule = _without_patterns(rule)
    members: list[Rule] = []
    for matched in product((True, False), repeat=len(patterns)):
        wanted = _other_goal(rule, {pattern for pattern, hit in zip(patterns, matched, strict=True) if hit})
        if not builder.expander.branches(wanted):
            continue
        conditions = [each if hit else negation(each) for each, hit in zip(automata, matched, strict=True)]
        key = _key(builder, rule, names, conditions)
        if key is not None:
            members.append(seq(key, Lit(": "), builder.goal(wanted)))
    return builder.named("other", alt(members)) if members else None


def _names_without_others(rule: ObjectRule) -> bool:
    silent = all(source.additional is None and not source.patterns for source in rule.sources)
    return silent and not rule.names and any(source.named for source in rule.sources)


def _without_patterns(rule: ObjectRule) -> ObjectRule:
    """The same without expressions that cannot be followed; what they allowed is then allowed to any name."""
    sources = tuple(
        replace(source, patterns=(), additional=None if source.patterns else source.additional)
        for source in rule.sources
    )
    return replace(rule, sources=sources)


def _other_goal(rule: ObjectRule, matched: set[str]) -> Goal:
    demands = []
    for source in rule.sources:
        mine = [demand for pattern, demand in source.patterns if pattern in matched]
        if not mine and source.additional is not None:
            mine = [source.additional]
        demands += mine
    return goal(demands)


def _key(builder: Builder, rule: ObjectRule, names: list[str], conditions: list[Automaton]) -> Rule | None:
    """A property name that meets the conditions and is none of the known names; None if there is none.

    A known name may not come twice: the second value would replace the first, unseen by the first one's rules.
    """
    if not conditions and not rule.names:
        return builder.writer.other_words(tuple(names)) if names else Ref("string")
    keys = negation(words_automaton(names)) if names else EVERYTHING
    for condition in conditions:
        keys = both(keys, condition)
    for demand in rule.names:
        try:
            keys = both(keys, _name_automaton(builder, (demand,)))
        except TooLarge:
            builder.late.add(("propertyNames", rule.pointer))
    return None if keys.is_empty else builder.writer.quoted(keys)


def _name_automaton(builder: Builder, wanted: Goal) -> Automaton:
    """The names that satisfy a goal."""
    found: list[Automaton] = []
    for branch in builder.expander.branches(wanted):
        builder.late |= branch.late
        if branch.values is not None:
            found.append(words_automaton(value for value in branch.values if isinstance(value, str)))
        elif "string" in branch.types:
            language = string_language(branch.string)
            if language is None:
                found.append(length_automaton(branch.string.low, branch.string.high))
            elif language.automaton is None:
                raise TooLarge("an expression that is written out")
            else:
                builder.late.update(language.late)
                found.append(language.automaton)
    return either(found)


Place: TypeAlias = tuple[str, int, int]  # how to read what is left, what is left, members so far
Step: TypeAlias = tuple[Rule, Place | None]  # a text, and the place behind it; None is the end


class _Members:
    """The places of one object as rules.

    A few properties come in any order: then what is left is a set of them, as bits. More come in the schema's
    order, or with the required ones first, as some models were trained to write; then it is an index.
    """

    def __init__(self, builder: Builder, slots: list[Slot], other: Rule | None, rule: ObjectRule) -> None:
        self._builder, self._slots, self._other = builder, slots, other
        self._free = 1 < len(slots) <= ANY_ORDER
        self._orders = {"s": slots, "r": sorted(slots, key=lambda slot: not slot.required)}
        n_required = sum(slot.required for slot in slots)
        self._low = rule.low if rule.low > n_required else 0
        self._high = rule.high if rule.high is not None and (other or rule.high < len(slots)) else None
        self._count_to = max(self._low, self._high or 0, 1)
        n_left = 1 << len(slots) if self._free else 2 * len(slots) + 1
        if (self._count_to + 1) * n_left > MAX_PLACES:
            self._leave_counts(rule)
        elif other and self._low > n_required + 1:
            # The same name twice counts once; only the last check sees it.
            builder.late.add(("minProperties", rule.pointer))
        self._prefix = f"object-{len(builder.rules)}"
        builder.rules[self._prefix] = EMPTY  # takes the name

    def _leave_counts(self, rule: ObjectRule) -> None:
        for keyword, bound in (("minProperties", self._low), ("maxProperties", self._high)):
            if bound:
                self._builder.late.add((keyword, rule.pointer))
        self._low, self._high, self._count_to = 0, None, 1

    def rule(self) -> Rule:
        """The whole object."""
        if self._high == 0:
            can_be_empty = self._low == 0 and not any(slot.required for slot in self._slots)
            return Lit("{}") if can_be_empty else Ref("never")
        starts: list[Place] = [("s", 0, 0)]
        if self._free:
            starts = [("f", (1 << len(self._slots)) - 1, 0)]
        elif self._orders["r"] != self._slots:
            starts.append(("r", 0, 0))
        made: set[Place] = set()
        waiting = list(starts)
        while waiting:
            place = waiting.pop()
            if place in made:
                continue
            made.add(place)
            steps = self._steps(*place)
            options = [seq(text, Ref(self._name(then)) if then else EMPTY) for text, then in steps]
            self._builder.rules[self._name(place)] = alt(options) if options else Ref("never")
            waiting += [then for _, then in steps if then]
        self._builder.rules[self._prefix] = seq(Lit("{"), alt(Ref(self._name(start)) for start in starts))
        return Ref(self._prefix)

    def _name(self, place: Place) -> str:
        return "-".join(map(str, (self._prefix, *place)))

    def _steps(self, kind: str, left: int, count: int) -> list[Step]:
        if kind == "f":
            return self._free_steps(left, count)
        if kind == "e" or left == len(self._slots):
            return self._last_steps(count)
        slot = self._orders[kind][left]
        steps: list[Step] = []
        if self._room(count):
            steps.append((self._text(slot.member, count), (kind, left + 1, self._more(count))))
        if not slot.required:
            steps.append((EMPTY, (kind, left + 1, count)))
        return steps

    def _free_steps(self, left: int, count: int) -> list[Step]:
        steps: list[Step] = []
        needed = False
        for index, slot in enumerate(self._slots):
            if left >> index & 1:
                needed |= slot.required
                if self._room(count):
                    steps.append(
                        (self._text(slot.member, count), ("f", left & ~(1 << index), self._more(count)))
                    )
        return steps if needed else steps + self._last_steps(count)

    def _last_steps(self, count: int) -> list[Step]:
        """Other members, or the end."""
        steps: list[Step] = []
        if self._other is not None and self._room(count):
            steps.append((self._text(self._other, count), ("e", 0, self._more(count))))
        if count >= self._low:
            steps.append((Lit("}"), None))
        return steps

    @staticmethod
    def _text(member: Rule, count: int) -> Rule:
        return seq(Lit(", ") if count else EMPTY, member)

    def _room(self, count: int) -> bool:
        return self._high is None or count < self._high

    def _more(self, count: int) -> int:
        return min(count + 1, self._count_to)
