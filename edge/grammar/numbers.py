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
from edge.grammar.json_text import DIGIT, FRACTION_DIGITS, INTEGER_DIGITS, NON_ZERO, NUMBER, one_of
from edge.grammar.regex import Cat, End, Loop, Node, Or, Regex, Set, Start
from edge.grammar.rules import (
    EMPTY,
    Alt,
    Chars,
    Lit,
    Ranges,
    Ref,
    Repeat,
    Rule,
    Seq,
    alt,
    chars,
    normalised,
    optional,
    seq,
)

Texts: TypeAlias = Rule | Automaton | None
Late: TypeAlias = tuple[tuple[str, str], ...]  # (keyword, pointer)

LARGEST = 10**INTEGER_DIGITS - 1
MAX_LISTED = 256  # values of a bounded multiple that are written out
EXACT_DIGITS = 15  # decimals with so many digits differ as doubles when they differ


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


@lru_cache(maxsize=1024)
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
    return _alternatives(_decimals(rule, fraction_digits)), tuple(late)


def _integers_of(rule: NumberRule, late: list[tuple[str, str]]) -> tuple[Texts, Late]:
    """A number that is a multiple of an integer is an integer."""
    if rule.fraction:
        return None, ()
    found, more = _integers(replace(rule, integer=True))
    return found, tuple(item for item in late if item[0] == "not") + more


def _alternatives(options: Iterable[Rule]) -> Rule | None:
    found = list(options)
    return alt(found) if found else None


# --- integers ---------------------------------------------------------------------------------------------------


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
        return _alternatives(_range(*span) for span in _spans(low, high, excluded)), late
    try:
        # Excluded values among many multiples are rare enough to be left to the last check.
        return _multiples(low, high, step), late if not excluded else (*late, ("not", ""))
    except TooLarge:
        pointers = (("multipleOf", pointer) for _, pointer in rule.multiples)
        return _range(low, high), (*late, *pointers)


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


def _range(low: int, high: int) -> Rule:
    """Every integer of the range."""
    options: list[Rule] = []
    if high >= 0:
        options.append(_naturals(max(low, 0), high))
    if low < 0:
        options.append(seq(Lit("-"), _naturals(max(-high, 1), -low)))
    return alt(options)


def _naturals(low: int, high: int) -> Rule:
    """Every integer from low to high, 0 <= low <= high, without leading zeros."""
    options: list[Rule] = []
    first, last = len(str(low)), len(str(high))
    if first == last:
        return _same_length(str(low), str(high))
    if low == 0:
        options.append(Lit("0"))
        low, first = 1, 1
    full_from, full_to = first, last
    if low != 10 ** (first - 1):
        options.append(_same_length(str(low), "9" * first))
        full_from += 1
    if high != 10**last - 1:
        options.append(_same_length("1" + "0" * (last - 1), str(high)))
        full_to -= 1
    if full_from <= full_to:
        options.append(seq(NON_ZERO, _digits(full_from - 1, full_to - 1)))
    return alt(options)


def _same_length(low: str, high: str) -> Rule:
    """Digit texts of one length between two of that length."""
    if not low:
        return EMPTY
    if low[0] == high[0]:
        return seq(Lit(low[0]), _same_length(low[1:], high[1:]))
    rest = len(low) - 1
    options: list[Rule] = []
    inner_low, inner_high = int(low[0]), int(high[0])
    if low[1:] != "0" * rest:
        options.append(seq(Lit(low[0]), _same_length(low[1:], "9" * rest)))
        inner_low += 1
    if high[1:] != "9" * rest:
        options.append(seq(Lit(high[0]), _same_length("0" * rest, high[1:])))
        inner_high -= 1
    if inner_low <= inner_high:
        options.append(seq(_digit(inner_low, inner_high), _digits(rest, rest)))
    return alt(options)


def _digit(low: int, high: int) -> Rule:
    return Lit(str(low)) if low == high else chars(f"{low}{high}")


def _digits(low: int, high: int) -> Rule:
    return EMPTY if high == 0 else Repeat(DIGIT, low, high)


def _multiples(low: int, high: int, step: int) -> Rule | Automaton:
    """Texts of the multiples of step from low to high. Raises TooLarge."""
    if step == 10 ** (len(str(step)) - 1):
        return alt(_shifted(low, high, step))
    within = regex_automaton(Regex(Cat((Start(), as_regex(_range(low, high)), End()))))
    return both(within, _residues(step))


def _shifted(low: int, high: int, power: int) -> list[Rule]:
    """Multiples of a power of ten: zero, and any other integer with zeros behind it."""
    zeros = Lit(str(power)[1:])
    first, last = -(-low // power), high // power
    options: list[Rule] = [Lit("0")] if first <= 0 <= last else []
    if last > 0:
        options.append(seq(_naturals(max(first, 1), last), zeros))
    if first < 0:
        options.append(seq(Lit("-"), _naturals(max(-last, 1), -first), zeros))
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


# --- decimals ---------------------------------------------------------------------------------------------------


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
    above = _Magnitudes(fraction_digits)
    if high is None or high > 0 or (high == 0 and not rule.high_open):
        start = (low, rule.low_open) if low is not None and low >= 0 else (zero, False)
        options += above.between(*start, high, rule.high_open)
    if low is None or low < 0:
        end = (None, False) if low is None else (-low, rule.low_open)
        start = (-high, rule.high_open) if high is not None and high <= 0 else (zero, True)
        options += [seq(Lit("-"), option) for option in above.between(*start, *end)]
    return options


class _Magnitudes:
    """Decimal texts without sign between two bounds."""

    def __init__(self, fraction_digits: int) -> None:
        self._most = fraction_digits

    def between(self, low: Decimal, low_open: bool, high: Decimal | None, high_open: bool) -> list[Rule]:
        """Options that together are the texts from low (at least 0) to high; empty if there are none."""
        digits = self._most
        if low_open or high_open:
            whole = max(len(str(int(bound))) for bound in (low, high or low))
            digits = min(digits, max(EXACT_DIGITS - whole, 0))
        options = self._plain(low, low_open, high, high_open, digits)
        if self._most == FRACTION_DIGITS:
            options += _with_exponent(low, low_open, high)
        return options

    def _plain(
        self, low: Decimal, low_open: bool, high: Decimal | None, high_open: bool, digits: int
    ) -> list[Rule]:
        whole_low, part_low = _parts(low)
        if high is None:
            whole_high, part_high = LARGEST + 1, ""
        else:
            whole_high, part_high = _parts(high)
        options: list[Rule] = []
        if whole_low > LARGEST:
            return []
        if whole_low == whole_high:
            parts = _fraction_between(part_low, low_open, part_high, high_open, digits)
            return [] if parts is None else [seq(Lit(str(whole_low)), parts)]
        if (above := _fraction_from(part_low, low_open, digits)) is not None:
            options.append(seq(Lit(str(whole_low)), _pointed(above)))
        if whole_low + 1 <= min(whole_high - 1, LARGEST):
            options.append(seq(_naturals(whole_low + 1, min(whole_high - 1, LARGEST)), _any_fraction(digits)))
        if whole_high <= LARGEST and (below := _fraction_to(part_high, high_open, digits)) is not None:
            options.append(seq(Lit(str(whole_high)), _pointed(below)))
        return options


def _with_exponent(low: Decimal, low_open: bool, high: Decimal | None) -> list[Rule]:
    """Texts with an exponent that are inside whatever their digits: tiny ones below 1, large ones from 10 on."""
    options: list[Rule] = []
    mantissa = seq(NON_ZERO, optional(seq(Lit("."), Repeat(DIGIT, 1, FRACTION_DIGITS))))
    exponent = alt((seq(Lit("0"), NON_ZERO), seq(NON_ZERO, Repeat(DIGIT, 0, 1))))
    if low <= 0 and (high is None or high >= 1):
        options.append(seq(mantissa, chars("e", "E"), Lit("-"), exponent))
    if low <= 10 and high is None:
        options.append(seq(mantissa, chars("e", "E"), optional(Lit("+")), exponent))
    return options


def _parts(value: Decimal) -> tuple[int, str]:
    """The integer part and the digits behind the point, without trailing zeros."""
    whole = int(value)
    digits = f"{value - whole:f}".partition(".")[2].rstrip("0")
    return whole, digits


# A fraction is the text behind the integer part: nothing, or a point and digits. The functions below give the digits;
# an option that may be empty stands for a text without point as well.


def _any_fraction(digits: int) -> Rule:
    return optional(seq(Lit("."), Repeat(DIGIT, 1, digits))) if digits else EMPTY


@dataclass(frozen=True, slots=True)
class _Digits:
    """Digits behind the point: `rule` for one or more of them (None: there are none), and whether none will do."""

    rule: Rule | None
    may_be_empty: bool


def _pointed(found: _Digits) -> Rule:
    if found.rule is None:
        return EMPTY
    with_point = seq(Lit("."), found.rule)
    return optional(with_point) if found.may_be_empty else with_point


def _fraction_from(bound: str, is_open: bool, digits: int) -> _Digits | None:
    """Digits of at least the bound, more than it if open; None if there are none."""
    rule = _digits_from(bound, is_open, digits)
    empty = not bound and not is_open
    return _Digits(rule, empty) if rule is not None or empty else None


def _digits_from(bound: str, is_open: bool, digits: int) -> Rule | None:
    if digits <= 0:
        return None
    if not bound:
        if not is_open:
            return Repeat(DIGIT, 1, digits)
        zeros = [seq(Lit("0" * n), NON_ZERO, _digits(0, digits - n - 1)) for n in range(digits)]
        return alt(zeros)
    first, rest = int(bound[0]), bound[1:]
    options: list[Rule] = []
    if first < 9:
        options.append(seq(_digit(first + 1, 9), _digits(0, digits - 1)))
    below = _digits_from(rest, is_open, digits - 1)
    if not rest and not is_open:
        options.append(seq(Lit(bound[0]), EMPTY if below is None else optional(below)))
    elif below is not None:
        options.append(seq(Lit(bound[0]), below))
    return alt(options) if options else None


def _fraction_to(bound: str, is_open: bool, digits: int) -> _Digits | None:
    """Digits of at most the bound, less than it if open; None if there are none."""
    empty = bool(bound) or not is_open
    rule = _digits_to(bound, is_open, digits)
    return _Digits(rule, empty) if rule is not None or empty else None


def _digits_to(bound: str, is_open: bool, digits: int) -> Rule | None:
    if digits <= 0:
        return None
    if not bound:
        return None if is_open else Repeat(Lit("0"), 1, digits)
    first, rest = int(bound[0]), bound[1:]
    options: list[Rule] = []
    if first > 0:
        options.append(seq(_digit(0, first - 1), _digits(0, digits - 1)))
    below = _digits_to(rest, is_open, digits - 1)
    may_end = bool(rest) or not is_open
    if may_end or below is not None:
        tail = EMPTY if below is None else optional(below) if may_end else below
        options.append(seq(Lit(bound[0]), tail))
    return alt(options) if options else None


def _fraction_between(low: str, low_open: bool, high: str, high_open: bool, digits: int) -> Rule | None:
    """The fractions between two bounds over the same integer part; None if there are none."""
    empty = not low and not low_open and (bool(high) or not high_open)
    rule = _digits_between(low, low_open, high, high_open, digits)
    if rule is None:
        return EMPTY if empty else None
    return _pointed(_Digits(rule, empty))


def _digits_between(low: str, low_open: bool, high: str, high_open: bool, digits: int) -> Rule | None:
    """One or more digits, padded with zeros in mind, from low to high."""
    if digits <= 0:
        return None
    a, b = int(low[0]) if low else 0, int(high[0]) if high else 0
    rest_low, rest_high = low[1:], high[1:]
    if a > b:
        return None
    if a == b:
        ends = (bool(rest_high) or not high_open) and not rest_low and not low_open
        if not low and not high:  # both bounds are reached: only zeros are left
            return Repeat(Lit("0"), 1, digits) if not low_open and not high_open else None
        below = _digits_between(rest_low, low_open, rest_high, high_open, digits - 1)
        if below is None:
            return Lit(str(a)) if ends else None
        return seq(Lit(str(a)), optional(below) if ends else below)
    options: list[Rule] = []
    from_low = _digits_from(rest_low, low_open, digits - 1)
    if not rest_low and not low_open:
        options.append(seq(Lit(str(a)), EMPTY if from_low is None else optional(from_low)))
    elif from_low is not None:
        options.append(seq(Lit(str(a)), from_low))
    if a + 1 <= b - 1:
        options.append(seq(_digit(a + 1, b - 1), _digits(0, digits - 1)))
    to_high = _digits_to(rest_high, high_open, digits - 1)
    may_end = bool(rest_high) or not high_open
    if may_end or to_high is not None:
        options.append(
            seq(Lit(str(b)), EMPTY if to_high is None else optional(to_high) if may_end else to_high)
        )
    return alt(options) if options else None
