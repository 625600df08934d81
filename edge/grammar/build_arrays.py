"""Rules for arrays: first items, the rest, how many, and how many of a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.grammar.branches import ArrayRule, Contains, Goal, goal
from edge.grammar.rules import EMPTY, Lit, Ref, Repeat, Rule, alt, optional, seq
from edge.grammar.strings import MAX_COUNTED

if TYPE_CHECKING:
    from edge.grammar.build import Builder

MAX_CONTAINS_STATES = 400
MAX_PREFIX = 1_000  # first items with demands of their own


def array_rule(builder: Builder, rule: ArrayRule) -> Rule:
    """The array's text, brackets included."""
    high = rule.high if rule.high is None or rule.high <= MAX_COUNTED else None
    if high != rule.high or rule.low > MAX_COUNTED:
        builder.late.add(("maxItems" if high != rule.high else "minItems", ""))
    low = min(rule.low, MAX_COUNTED)
    kinds = list(rule.contains)
    if (
        kinds
        and not rule.prefix_length
        and (found := _containing(builder, rule, kinds[0], low, high)) is not None
    ):
        builder.late.update(("contains", other.pointer) for other in kinds[1:])
        return found
    builder.late.update(("contains", each.pointer) for each in kinds)
    return builder.named("array", seq(Lit("["), _items(builder, rule, low, high)))


def _items(builder: Builder, rule: ArrayRule, low: int, high: int | None) -> Rule:
    """Items and the closing bracket, built from the end."""
    n_first = min(rule.prefix_length, MAX_PREFIX)
    if rule.prefix_length > MAX_PREFIX:
        raise builder.document.fail("", "prefixItems", f"more than {MAX_PREFIX}")
    if high is not None:
        n_first = min(n_first, high)
    after = _rest(builder, rule.item(rule.prefix_length), low - n_first, high, n_first)
    for index in reversed(range(n_first)):
        item = seq(Lit(", ") if index else EMPTY, builder.goal(rule.item(index)), after)
        body = item if index < low else alt((item, Lit("]")))
        after = builder.named("items", body) if index else body
    return after


def _rest(builder: Builder, item: Goal, low: int, high: int | None, n_before: int) -> Rule:
    """The items behind the first ones, and the closing bracket."""
    if high is not None:
        high -= n_before
    if high is not None and high <= 0:
        return Lit("]")
    value = builder.goal(item)
    low = max(low, 0)
    further = builder.named("item", seq(Lit(", "), value))
    if n_before:
        return seq(Repeat(further, low, high), Lit("]"))
    items = seq(value, Repeat(further, max(low - 1, 0), None if high is None else high - 1))
    return seq(items if low else optional(items), Lit("]"))


def _containing(builder: Builder, rule: ArrayRule, kind: Contains, low: int, high: int | None) -> Rule | None:
    """The array as states of (items so far, items of the kind so far); None if that is too many."""
    counted = high if high is not None else max(low, 1)
    wanted = kind.low if kind.high is None else kind.high
    if (counted + 1) * (wanted + 1) > MAX_CONTAINS_STATES:
        return None
    plain = rule.item(0)
    hit = builder.goal(goal((*plain, kind.item)))
    # Only an upper bound needs to know that an item is not of the kind.
    other = builder.goal(goal((*plain, kind.item.opposite())) if kind.high is not None else plain)
    prefix = f"contains-{len(builder.rules)}"
    for count in range(counted + 1):
        comma = Lit(", ") if count else EMPTY
        for hits in range(wanted + 1):
            options: list[Rule] = []
            if high is None or count < high:
                after = f"{prefix}-{min(count + 1, counted)}"
                options.append(seq(comma, other, Ref(f"{after}-{hits}")))
                if kind.high is None or hits < wanted:
                    options.append(seq(comma, hit, Ref(f"{after}-{min(hits + 1, wanted)}")))
            if count >= low and hits >= kind.low:
                options.append(Lit("]"))
            builder.rules[f"{prefix}-{count}-{hits}"] = alt(options) if options else Ref("never")
    return seq(Lit("["), Ref(f"{prefix}-0-0"))
