"""Rules for the digits of integers between two bounds."""

from __future__ import annotations

from edge.grammar.json_text import DIGIT, INTEGER_DIGITS, NON_ZERO
from edge.grammar.rules import EMPTY, Lit, Repeat, Rule, alt, chars, seq

LARGEST = 10**INTEGER_DIGITS - 1


def integer_range(low: int, high: int) -> Rule:
    """Every integer of the range."""
    options: list[Rule] = []
    if high >= 0:
        options.append(naturals(max(low, 0), high))
    if low < 0:
        options.append(seq(Lit("-"), naturals(max(-high, 1), -low)))
    return alt(options)


def naturals(low: int, high: int) -> Rule:
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
        options.append(seq(NON_ZERO, digit_run(full_from - 1, full_to - 1)))
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
        options.append(seq(one_digit(inner_low, inner_high), digit_run(rest, rest)))
    return alt(options)


def one_digit(low: int, high: int) -> Rule:
    return Lit(str(low)) if low == high else chars(f"{low}{high}")


def digit_run(low: int, high: int) -> Rule:
    return EMPTY if high == 0 else Repeat(DIGIT, low, high)
