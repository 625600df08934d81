"""How short the text of each rule can be; rules that never end are found and taken out."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Set

from edge.grammar.rules import Alt, Chars, Grammar, Lit, Ref, Repeat, Rule, Seq, alt, seq

INFINITE = 1 << 60


def shortest_lengths(grammar: Grammar) -> dict[str, int]:
    """Characters of the shortest text of every named rule; INFINITE or more where no text ends."""
    return dict(_lengths_of(grammar.rules))


def _lengths_of(rules: dict[str, Rule]) -> dict[str, int]:
    """The same; a name that is not among the rules counts as 0."""
    lengths = defaultdict(int, dict.fromkeys(rules, INFINITE))
    users: dict[str, set[str]] = defaultdict(set)
    for name, rule in rules.items():
        for used in references(rule):
            users[used].add(name)
    # Most rules stand before what they use, so most are settled by one look from the end.
    waiting = deque(reversed(rules))
    queued = set(waiting)
    while waiting:
        name = waiting.popleft()
        queued.discard(name)
        length = rule_length(rules[name], lengths)
        if length < lengths[name]:
            lengths[name] = length
            fresh = users[name] - queued
            waiting.extend(fresh)
            queued |= fresh
    return lengths


def rule_length(rule: Rule, lengths: dict[str, int]) -> int:
    """Characters of the rule's shortest text, given those of the named rules."""
    kind = type(rule)
    if kind is Ref:
        return lengths[rule.name]  # type: ignore[union-attr]
    if kind is Lit:
        return len(rule.text)  # type: ignore[union-attr]
    if kind is Chars:
        return 1
    if isinstance(rule, Seq):
        return min(sum([rule_length(part, lengths) for part in rule.parts]), INFINITE)
    if isinstance(rule, Alt):
        return min([rule_length(option, lengths) for option in rule.options])
    assert isinstance(rule, Repeat)
    return min(rule.low * rule_length(rule.part, lengths), INFINITE) if rule.low else 0


def references(rule: Rule) -> list[str]:
    """The names that the rule uses, with repetitions, in no order."""
    found: list[str] = []
    waiting = [rule]
    while waiting:
        each = waiting.pop()
        kind = type(each)
        if kind is Ref:
            found.append(each.name)  # type: ignore[union-attr]
        elif kind is Seq:
            waiting += each.parts  # type: ignore[union-attr]
        elif kind is Alt:
            waiting += each.options  # type: ignore[union-attr]
        elif kind is Repeat:
            waiting.append(each.part)  # type: ignore[union-attr]
    return found


def pruned(grammar: Grammar, ending: Set[str] = frozenset()) -> Grammar | None:
    """The same language without choices that never end and without unused rules; None if it is empty.

    ending: names of rules that are known to have a finite text, which saves looking at them.
    """
    lengths: dict[str, int] = defaultdict(int)
    doubtful = {name: rule for name, rule in grammar.rules.items() if name not in ending}
    lengths.update(_lengths_of(doubtful))
    if lengths[grammar.root] >= INFINITE:
        return None
    dead = {name for name, length in lengths.items() if length >= INFINITE}
    kept: dict[str, Rule] = {}
    waiting = [grammar.root]
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        rule = grammar.rules[name]
        used = references(rule)
        if not dead.isdisjoint(used):
            rule = _without(rule, dead, lengths)
            used = references(rule)
        kept[name] = rule
        waiting.extend(used)
    return Grammar({name: kept[name] for name in grammar.rules if name in kept}, grammar.root)


def _without(rule: Rule, dead: set[str], lengths: dict[str, int]) -> Rule:
    """The rule, whose shortest text is finite, without the choices that have none."""
    match rule:
        case Seq(parts):
            return seq(*(_without(part, dead, lengths) for part in parts))
        case Alt(options):
            alive = (option for option in options if rule_length(option, lengths) < INFINITE)
            return alt(_without(option, dead, lengths) for option in alive)
        case Repeat(part, low, high):
            if rule_length(part, lengths) >= INFINITE:
                return Lit("")
            return Repeat(_without(part, dead, lengths), low, high)
        case _:
            return rule
