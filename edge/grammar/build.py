"""From a tool's schema to the rules of its call: branches become rules, goals become named rules.

Goals wait in a list rather than on Python's stack, so deep or long chains of schemas cannot exhaust it. A goal that
nothing satisfies becomes a rule without end, and `lengths.pruned` takes out every choice that leads there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import perf_counter

from edge.grammar.automaton import Automaton
from edge.grammar.branches import FREE_ARRAY, FREE_OBJECT, Branch, Demand, Goal, ObjectRule, goal, only
from edge.grammar.build_arrays import array_rule
from edge.grammar.build_objects import object_rule
from edge.grammar.document import Document
from edge.grammar.expand import Expander, name_goal
from edge.grammar.json_text import STANDARD_RULES, dumps, one_of
from edge.grammar.lengths import INFINITE, pruned, shortest_lengths
from edge.grammar.numbers import FREE as FREE_NUMBER
from edge.grammar.numbers import number_texts
from edge.grammar.rules import Grammar, Lit, Ref, Rule, alt, seq
from edge.grammar.strings import MAX_COUNTED, StringWriter, string_language
from edge.types import Schema, Tool

MAX_RULES = 60_000
MAX_SECONDS = 10  # against schemas made to take long; honest ones take milliseconds
OBJECTS = only("object")
NEVER = Ref("never")  # a rule that has no finite text


@dataclass(frozen=True, slots=True)
class LateCheck:
    """A keyword that the rules do not hold fully; it is checked when the arguments are finished."""

    keyword: str
    pointer: str


@dataclass(frozen=True, slots=True)
class Built:
    """The rules of a whole call, and what they leave to the last check."""

    grammar: Grammar
    late_checks: tuple[LateCheck, ...]


def build_call(tool: Tool, *, declared_only: bool = False) -> Built:
    """The rules of the text after `<tool_call>`; the root rule is `root`.

    declared_only: objects whose schema names properties and is silent about others hold only those.
    Raises UnsupportedSchema, also for a schema that no arguments satisfy.
    """
    builder = Builder(Document(tool), declared_only=declared_only)
    arguments = builder.root(only_objects=True)
    return _finished(
        builder, seq(Lit(f'\n{{"name": {dumps(tool.name)}, "arguments": '), arguments, Lit("}\n</tool_call>"))
    )


def build_value(name: str, schema: Schema) -> Built:
    """The rules of a bare JSON value that satisfies the schema; `name` is for messages. Raises UnsupportedSchema."""
    builder = Builder(Document(Tool(name, schema)))
    return _finished(builder, builder.root(only_objects=False))


def _finished(builder: Builder, root: Rule) -> Built:
    builder.rules["root"] = root
    grammar = pruned(
        Grammar({"root": builder.rules.pop("root"), **builder.rules}, "root"), builder.writer.states
    )
    if grammar is None:
        pointer, keyword = builder.impossible()
        raise builder.document.fail(pointer, keyword, "nothing can satisfy the schema")
    late = sorted(builder.late, key=lambda entry: (entry[1], entry[0]))
    return Built(grammar, tuple(LateCheck(*entry) for entry in late))


class Builder:
    """Makes rules for the goals of one document."""

    def __init__(self, document: Document, *, declared_only: bool = False) -> None:
        self.document, self.declared_only = document, declared_only
        self.expander = Expander(document)
        self.rules: dict[str, Rule] = {**STANDARD_RULES, NEVER.name: NEVER}
        self.writer = StringWriter(self.rules)
        self.late: set[tuple[str, str]] = set()
        self._goals: dict[Goal, Rule] = {}
        self._waiting: deque[tuple[Goal, str]] = deque()

    def root(self, *, only_objects: bool) -> Rule:
        """The rule of the root schema, narrowed to objects where arguments are meant."""
        met = [
            branch.meet(OBJECTS) if only_objects else branch
            for branch in self.expander.branches(goal([Demand("")]))
        ]
        found = [self._branch(branch) for branch in met if branch is not None]
        rules = [rule for rule in found if rule is not None]
        rule = self.named("arguments", alt(rules) if rules else NEVER)
        deadline = perf_counter() + MAX_SECONDS
        while self._waiting:
            waiting, name = self._waiting.popleft()
            self.rules[name] = self._body(waiting)
            if len(self.rules) > MAX_RULES or perf_counter() > deadline:
                raise self.document.fail(
                    "", "schema", f"more than {MAX_RULES} rules, or {MAX_SECONDS} s, to compile"
                )
        return rule

    def named(self, kind: str, rule: Rule) -> Ref:
        """A name for the rule, so that it is written once however often it is used."""
        if isinstance(rule, Ref):
            return rule
        name = f"{kind}-{len(self.rules)}"
        self.rules[name] = rule
        return Ref(name)

    def goal(self, wanted: Goal) -> Rule:
        """The rule of any value that satisfies the goal."""
        known = self._goals.get(wanted)
        if known is None:
            branches = self.expander.branches(wanted)
            if all(self._is_simple(branch) for branch in branches):
                known = self._body(wanted)
            else:
                known = Ref(f"value-{len(self.rules)}")
                self.rules[known.name] = NEVER  # holds the name until its turn comes
                self._waiting.append((wanted, known.name))
            self._goals[wanted] = known
        return known

    @staticmethod
    def _is_simple(branch: Branch) -> bool:
        """Whether its rule needs no other goals."""
        if branch.values is not None:
            return True
        return (branch.members == FREE_OBJECT or "object" not in branch.types) and (
            branch.array == FREE_ARRAY or "array" not in branch.types
        )

    def _body(self, wanted: Goal) -> Rule:
        found = [
            rule for branch in self.expander.branches(wanted) if (rule := self._branch(branch)) is not None
        ]
        return alt(found) if found else NEVER

    def _branch(self, branch: Branch) -> Rule | None:
        self.late |= branch.late
        if branch.values is not None:
            return self.named("enum", one_of(map(dumps, branch.values))) if branch.values else None
        if branch == Branch(late=branch.late):
            return Ref("value")
        rules: list[Rule] = [Ref("boolean")] if {"true", "false"} <= branch.types else []
        rules += [
            Lit(name)
            for name in ("true", "false", "null")
            if name in branch.types and (not rules or name == "null")
        ]
        rules += [
            self._of_type(branch, name)
            for name in ("string", "number", "array", "object")
            if name in branch.types
        ]
        return alt(rules) if rules else None

    def _of_type(self, branch: Branch, kind: str) -> Rule:
        match kind:
            case "string":
                return self._string(branch)
            case "number":
                return self._number(branch)
            case "array":
                return Ref("array") if branch.array == FREE_ARRAY else array_rule(self, branch.array)
            case _:
                if branch.members == FREE_OBJECT:
                    return Ref("object")
                return object_rule(self, branch.members)

    def _string(self, branch: Branch) -> Rule:
        if max(branch.string.low, branch.string.high or 0) > MAX_COUNTED:
            keyword = "minLength" if branch.string.low > MAX_COUNTED else "maxLength"
            self.late.add((keyword, branch.string.length_pointer))
        if (language := string_language(branch.string)) is not None:
            self.late.update(language.late)
            if language.is_empty:
                return NEVER
        return self.writer.string(branch.string)

    def _number(self, branch: Branch) -> Rule:
        texts, late = number_texts(branch.number)
        if late and branch.number != FREE_NUMBER:
            self.late.update((keyword, pointer) for keyword, pointer in late)
        if texts is None:
            return NEVER
        return (
            self.writer.automaton(texts, Lit(""))
            if isinstance(texts, Automaton)
            else self.named("number", texts)
        )

    def impossible(self) -> tuple[str, str]:
        """Where the schema contradicts itself: the deepest goal that is needed and has no branch or text."""
        lengths = shortest_lengths(Grammar(self.rules, "arguments"))
        wanted, keyword, seen = goal([Demand("")]), "schema", set[Goal]()
        while wanted not in seen:
            seen.add(wanted)
            for name, below in self._needed(wanted):
                rule = self._goals.get(below)
                if rule is None or not isinstance(rule, Ref) or lengths.get(rule.name, 0) >= INFINITE:
                    wanted, keyword = below, name
                    break
        pointers = [demand.pointer for demand in wanted if not demand.pointer.startswith("#")]
        return (pointers[-1] if pointers else ""), keyword

    def _needed(self, wanted: Goal) -> list[tuple[str, Goal]]:
        """The goals that every value of the goal needs, for the first branch."""
        for branch in self.expander.branches(wanted):
            rule: ObjectRule = branch.members
            needed = [("required", name_goal(rule, name)) for name in rule.required]
            return needed + [("items", branch.array.item(index)) for index in range(min(branch.array.low, 1))]
        return []
