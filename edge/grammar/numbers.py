"""Rules for JSON numbers within bounds, held exactly, digit by digit.

A text is compared with a bound as a decimal, never as a float. Rounding to a double keeps order, so a text on the
right side of an inclusive bound stays there; for exclusive bounds the digits behind the point are few enough that
different texts near the bound are different doubles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias

from edge.grammar.automaton import MAX_STATES, Automaton, TooLarge, both, explored, regex_automaton
from edge.grammar.decimals import Magnitudes
from edge.grammar.digits import LARGEST, integer_range, naturals
from edge.grammar.json_text import FRACTION_DIGITS, NUMBER, one_of
from edge.grammar.kept import kept
from edge.grammar.regex import Cat, End, Loop, Node, Or, Regex, Set, Start
from edge.grammar.rules import (
    Alt,
    Chars,
    Lit,
    Ranges,
    Ref,
    Repeat,
    Rule,
    Seq,
    alt,
    normalised,
    seq,
)

Texts: TypeAlias = Rule | Automaton | None
Late: TypeAlias = tuple[tuple[str, str], ...]  # (keyword, pointer)

MAX_LISTED = 256  # values of a bounded multiple that are written out


@dataclass(frozen=True, slots=True)
class NumberRule:
    """What a number must satisfy, all at once. Bounds are None where there is none."""

    low: Decimal | None = None
    low_open: bool = False
    high: Decimal | None = None
    high_open: bool = False
    integer: bool = False
    fraction: bool = False  # must not be an integer
    multiples: tuple[tuple[Decimal, str], ...] = ()  # (of what, pointer)
    excluded: tuple[Decimal, ...] = ()

    def meet(self, other: NumberRule) -> NumberRule:
        """Both at once."""
        low, low_open = _tighter(self.low, self.low_open, other.low, other.low_open, upper=False)
        high, high_open = _tighter(self.high, self.high_open, other.high, other.high_open, upper=True)
        return NumberRule(
            low,
            low_open,
            high,
            high_open,
            self.integer or other.integer,
            self.fraction or other.fraction,
            tuple(dict.fromkeys(self.multiples + other.multiples)),
            tuple(dict.fromkeys(self.excluded + other.excluded)),
        )


FREE = NumberRule()
FREE_INTEGER = NumberRule(integer=True)


def _tighter(
    first: Decimal | None, first_open: bool, second: Decimal | None, second_open: bool, *, upper: bool
) -> tuple[Decimal | None, bool]:
    if first is None or second is None:
        return (second, second_open) if first is None else (first, first_open)
    if first == second:
        return first, first_open or second_open
    return (first, first_open) if (first < second) == upper else (second, second_open)


@kept
def number_texts(rule: NumberRule) -> tuple[Texts, Late]:
    """The texts of the numbers that fit, None if none does; and what these texts do not hold fully."""
    if rule.integer and rule.fraction:
        return None, ()
    if rule == FREE:
        return Ref("number"), ()
    if rule == FREE_INTEGER:
        return Ref("integer"), ()
    if rule.integer:
        return _integers(rule)
    late = [("not", "")] if rule.fraction or rule.excluded else []
    fraction_digits = FRACTION_DIGITS
    for of, pointer in rule.multiples:
        late.append(("multipleOf", pointer))  # jsonschema divides doubles, so it refuses some true multiples
        exponent = of.normalize().as_tuple().exponent
        assert isinstance(exponent, int)
        if exponent >= 0:
            return _integers_of(rule, late)
        fraction_digits = min(fraction_digits, -exponent)
    return alternatives(_decimals(rule, fraction_digits)), tuple(late)


def _integers_of(rule: NumberRule, late: list[tuple[str, str]]) -> tuple[Texts, Late]:
    """A number that is a multiple of an integer is an integer."""
    if rule.fraction:
        return None, ()
    found, more = _integers(replace(rule, integer=True))
    return found, tuple(item for item in late if item[0] == "not") + more


def alternatives(options: Iterable[Rule]) -> Rule | None:
    found = list(options)
    return alt(found) if found else None


def _integers(rule: NumberRule) -> tuple[Texts, Late]:
    low, high = _integer_bounds(rule)
    excluded = sorted({int(value) for value in rule.excluded if value == value.to_integral_value()})
    step, late = _step(rule)
    first, last = -(-low // step), high // step
    if first > last:
        return None, ()
    if (step > 1 or excluded) and last - first < MAX_LISTED:
        values = [value * step for value in range(first, last + 1) if value * step not in excluded]
        return (one_of(map(str, values)), late) if values else (None, ())
    if step == 1:
        return alternatives(integer_range(*span) for span in _spans(low, high, excluded)), late
    try:
        # Excluded values among many multiples are rare enough to be left to the last check.
        return _multiples(low, high, step), late if not excluded else (*late, ("not", ""))
    except TooLarge:
        pointers = (("multipleOf", pointer) for _, pointer in rule.multiples)
        return integer_range(low, high), (*late, *pointers)


def _integer_bounds(rule: NumberRule) -> tuple[int, int]:
    low, high = -LARGEST, LARGEST
    if rule.low is not None:
        ceiling = _ceiling(rule.low)
        low = max(low, ceiling + 1 if rule.low_open and ceiling == rule.low else ceiling)
    if rule.high is not None:
        floor = -_ceiling(-rule.high)
        high = min(high, floor - 1 if rule.high_open and floor == rule.high else floor)
    return low, high


def _ceiling(value: Decimal) -> int:
    whole = int(value)
    return whole + 1 if value > whole else whole


def _step(rule: NumberRule) -> tuple[int, Late]:
    """The integer that every value is a multiple of."""
    step = 1
    late: list[tuple[str, str]] = []
    for of, pointer in rule.multiples:
        numerator, denominator = of.as_integer_ratio()
        if denominator != 1:
            late.append(("multipleOf", pointer))  # as for decimals
        a, b = step, numerator
        while b:
            a, b = b, a % b
        step = step // a * numerator
    return step, tuple(late)


def _spans(low: int, high: int, excluded: list[int]) -> list[tuple[int, int]]:
    """The integers from low to high without the excluded ones, as ranges."""
    spans = []
    for value in excluded:
        if low <= value <= high:
            if low < value:
                spans.append((low, value - 1))
            low = value + 1
    return [*spans, (low, high)] if low <= high else spans


def _multiples(low: int, high: int, step: int) -> Rule | Automaton:
    """Texts of the multiples of step from low to high. Raises TooLarge."""
    if step == 10 ** (len(str(step)) - 1):
        return alt(_shifted(low, high, step))
    within = regex_automaton(Regex(Cat((Start(), as_regex(integer_range(low, high)), End()))))
    return both(within, _residues(step))


def _shifted(low: int, high: int, power: int) -> list[Rule]:
    """Multiples of a power of ten: zero, and any other integer with zeros behind it."""
    zeros = Lit(str(power)[1:])
    first, last = -(-low // power), high // power
    options: list[Rule] = [Lit("0")] if first <= 0 <= last else []
    if last > 0:
        options.append(seq(naturals(max(first, 1), last), zeros))
    if first < 0:
        options.append(seq(Lit("-"), naturals(max(-last, 1), -first), zeros))
    return options


@lru_cache(maxsize=64)
def _residues(step: int) -> Automaton:
    """Integer texts that are multiples of step, read digit by digit; a state is what was read, modulo step."""
    if step > MAX_STATES:
        raise TooLarge(f"multiples of {step}")

    def follow(state: int) -> list[tuple[Ranges, int]]:
        if state < 0:  # nothing read yet, or a sign
            sign = [(normalised([(0x2D, 0x2D)]), -2)] if state == -1 else []
            return sign + [(normalised([(0x30 + digit,) * 2]), digit % step) for digit in range(10)]
        targets: dict[int, list[tuple[int, int]]] = {}
        for digit in range(10):
            targets.setdefault((state * 10 + digit) % step, []).append((0x30 + digit, 0x30 + digit))
        return [(normalised(spans), target) for target, spans in targets.items()]

    return explored(-1, follow, lambda state: state == 0)


def as_regex(rule: Rule) -> Node:
    """The same texts as a tree of a regular expression; the rule must not refer to others."""
    match rule:
        case Lit(text):
            return Cat(tuple(Set(((ord(char), ord(char)),)) for char in text))
        case Chars(ranges):
            return Set(ranges)
        case Seq(parts):
            return Cat(tuple(map(as_regex, parts)))
        case Alt(options):
            return Or(tuple(map(as_regex, options)))
        case Repeat(part, low, high):
            return Loop(as_regex(part), low, high)
        case _:
            raise AssertionError("a reference has no tree of its own")


def _decimals(rule: NumberRule, fraction_digits: int) -> list[Rule]:
    low, high = rule.low, rule.high
    if (
        low is not None
        and high is not None
        and (low > high or (low == high and (rule.low_open or rule.high_open)))
    ):
        return []
    if low is None and high is None and fraction_digits == FRACTION_DIGITS:
        return [NUMBER]
    options: list[Rule] = []
    zero = Decimal(0)
    above = Magnitudes(fraction_digits)
    if high is None or high > 0 or (high == 0 and not rule.high_open):
        start = (low, rule.low_open) if low is not None and low >= 0 else (zero, False)
        options += above.between(*start, high, rule.high_open)
    if low is None or low < 0:
        end = (None, False) if low is None else (-low, rule.low_open)
        start = (-high, rule.high_open) if high is not None and high <= 0 else (zero, True)
        options += [seq(Lit("-"), option) for option in above.between(*start, *end)]
    return options
