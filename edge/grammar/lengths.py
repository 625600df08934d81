"""How short the text of each rule can be; rules that never end are found and taken out."""

from __future__ import annotations

from collections import defaultdict, deque

from edge.grammar.rules import Alt, Chars, Grammar, Lit, Ref, Repeat, Rule, Seq, alt, seq

INFINITE = 1 << 60


def shortest_lengths(grammar: Grammar) -> dict[str, int]:
    """Characters of the shortest text of every named rule; INFINITE or more where no text ends."""
    lengths = dict.fromkeys(grammar.rules, INFINITE)
    users: dict[str, set[str]] = defaultdict(set)
    for name, rule in grammar.rules.items():
        for used in references(rule):
            users[used].add(name)
    # Users stand behind what they use more often than not, so most rules are settled by the first look.
    waiting = deque(grammar.rules)
    queued = set(waiting)
    while waiting:
        name = waiting.popleft()
        queued.discard(name)
        length = rule_length(grammar.rules[name], lengths)
        if length < lengths[name]:
            lengths[name] = length
            fresh = users[name] - queued
            waiting.extend(fresh)
            queued |= fresh
    return lengths


def rule_length(rule: Rule, lengths: dict[str, int]) -> int:
    """Characters of the rule's shortest text, given those of the named rules."""
    match rule:
        case Lit(text):
            return len(text)
        case Chars():
            return 1
        case Ref(name):
            return lengths[name]
        case Seq(parts):
            return min(sum(rule_length(part, lengths) for part in parts), INFINITE)
        case Alt(options):
            return min(rule_length(option, lengths) for option in options)
        case Repeat(part, low, _):
            return min(low * rule_length(part, lengths), INFINITE) if low else 0


def references(rule: Rule) -> list[str]:
    """The names that the rule uses, in order, with repetitions."""
    match rule:
        case Ref(name):
            return [name]
        case Seq(parts):
            return [name for part in parts for name in references(part)]
        case Alt(options):
            return [name for option in options for name in references(option)]
        case Repeat(part, _, _):
            return references(part)
        case _:
            return []


def pruned(grammar: Grammar) -> Grammar | None:
    """The same language without choices that never end and without unused rules; None if it is empty."""
    lengths = shortest_lengths(grammar)
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
        kept[name] = _without(rule, dead, lengths) if dead else rule
        waiting.extend(references(kept[name]))
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
