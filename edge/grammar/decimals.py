"""Rules for decimals without sign between two bounds, compared digit by digit.

A fraction is the text behind the integer part: nothing, or a point and digits. Most functions here give the digits
alone, and say whether none of them will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from edge.grammar.digits import LARGEST, digit_run, naturals, one_digit
from edge.grammar.json_text import DIGIT, FRACTION_DIGITS, NON_ZERO
from edge.grammar.rules import EMPTY, Lit, Repeat, Rule, alt, chars, optional, seq

EXACT_DIGITS = 15  # decimals with so many digits differ as doubles when they differ


class Magnitudes:
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
            options.append(seq(naturals(whole_low + 1, min(whole_high - 1, LARGEST)), _any_fraction(digits)))
        if whole_high <= LARGEST and (below := _fraction_to(part_high, high_open, digits)) is not None:
            options.append(seq(Lit(str(whole_high)), _pointed(below)))
        return options


def _with_exponent(low: Decimal, low_open: bool, high: Decimal | None) -> list[Rule]:
    """Texts with an exponent that are inside whatever their digits: tiny ones below 1, large ones from 10 on."""
    options: list[Rule] = []
    mantissa = seq(
        NON_ZERO, optional(seq(Lit("."), Repeat(DIGIT, 1, EXACT_DIGITS - 1)))
    )  # cannot round up to 10
    exponent = alt((seq(Lit("0"), NON_ZERO), seq(NON_ZERO, Repeat(DIGIT, 0, 1))))
    if low <= 0 and (high is None or high >= 1):
        options.append(seq(mantissa, chars("e", "E"), Lit("-"), exponent))
    if (low < 10 or (low == 10 and not low_open)) and high is None:
        options.append(seq(mantissa, chars("e", "E"), optional(Lit("+")), exponent))
    return options


def _parts(value: Decimal) -> tuple[int, str]:
    """The integer part and the digits behind the point, without trailing zeros."""
    whole = int(value)
    digits = f"{value - whole:f}".partition(".")[2].rstrip("0")
    return whole, digits


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
        zeros = [seq(Lit("0" * n), NON_ZERO, digit_run(0, digits - n - 1)) for n in range(digits)]
        return alt(zeros)
    first, rest = int(bound[0]), bound[1:]
    options: list[Rule] = []
    if first < 9:
        options.append(seq(one_digit(first + 1, 9), digit_run(0, digits - 1)))
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
        options.append(seq(one_digit(0, first - 1), digit_run(0, digits - 1)))
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
        options.append(seq(one_digit(a + 1, b - 1), digit_run(0, digits - 1)))
    to_high = _digits_to(rest_high, high_open, digits - 1)
    may_end = bool(rest_high) or not high_open
    if may_end or to_high is not None:
        options.append(
            seq(Lit(str(b)), EMPTY if to_high is None else optional(to_high) if may_end else to_high)
        )
    return alt(options) if options else None
