"""Rules for JSON text as `json.dumps(value, ensure_ascii=False)` writes it: strings, numbers, free values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby

from edge.grammar.rules import (
    EMPTY,
    LAST_CODE_POINT,
    Lit,
    Ref,
    Repeat,
    Rule,
    alt,
    chars,
    optional,
    seq,
)

INTEGER_DIGITS = 18  # stays inside 64 bits
FRACTION_DIGITS = 17  # enough for any double
MAX_FORKS = 50

ANY_CHAR = chars((0, LAST_CODE_POINT))
DIGIT, NON_ZERO, HEX = chars("09"), chars("19"), chars("09", "af", "AF")
PLAIN = chars(" !", "#[", (0x5D, LAST_CODE_POINT))  # what a string holds unescaped

# `\uXXXX` of a character below the surrogates, above them, or of a pair of them; never half a pair.
_BELOW_SURROGATES = seq(chars("d", "D"), chars("07"), HEX, HEX)
_PAIR = seq(
    *(chars("d", "D"), chars("89", "ab", "AB"), HEX, HEX),
    *(Lit("\\u"), chars("d", "D"), chars("cf", "CF"), HEX, HEX),
)
_UNIT = alt((seq(chars("09", "ac", "AC", "ef", "EF"), HEX, HEX, HEX), _BELOW_SURROGATES, _PAIR))
# The same for characters above ASCII alone.
_FAR_UNIT = alt(
    (
        seq(Lit("00"), chars("89", "af", "AF"), HEX),
        seq(Lit("0"), chars("19", "af", "AF"), HEX, HEX),
        seq(chars("19", "ac", "AC", "ef", "EF"), HEX, HEX, HEX),
        _BELOW_SURROGATES,
        _PAIR,
    )
)
STRING_CHAR = alt(
    (PLAIN, seq(Lit("\\"), alt((chars('"', "\\", "/", "b", "f", "n", "r", "t"), seq(Lit("u"), _UNIT)))))
)

INTEGER = alt((seq(optional(Lit("-")), NON_ZERO, Repeat(DIGIT, 0, INTEGER_DIGITS - 1)), Lit("0")))
_EXPONENT = seq(chars("e", "E"), optional(chars("+", "-")), Repeat(DIGIT, 1, 2))
NUMBER = seq(
    optional(Lit("-")),
    alt((Lit("0"), seq(NON_ZERO, Repeat(DIGIT, 0, INTEGER_DIGITS - 1)))),
    optional(seq(Lit("."), Repeat(DIGIT, 1, FRACTION_DIGITS))),
    optional(_EXPONENT),
)

STANDARD_RULES: dict[str, Rule] = {
    "char": STRING_CHAR,
    "far": seq(Lit("\\u"), _FAR_UNIT),
    "special": alt(
        (
            seq(Lit("\\"), chars('"', "\\", "b", "f", "n", "r", "t")),
            seq(
                Lit("\\u00"),
                alt((seq(Lit("0"), chars("07", "b", "e", "f")), seq(Lit("1"), chars("09", "af")))),
            ),
        )
    ),
    "string": seq(Lit('"'), Ref("text")),
    "text": seq(Repeat(Ref("char"), 0, None), Lit('"')),  # the rest of a string
    "integer": INTEGER,
    "number": NUMBER,
    "boolean": alt((Lit("true"), Lit("false"))),
    "null": Lit("null"),
    "value": alt(map(Ref, ("object", "array", "string", "number", "boolean", "null"))),
    "member": seq(Ref("string"), Lit(": "), Ref("value")),
    "object": seq(
        Lit("{"), optional(seq(Ref("member"), Repeat(seq(Lit(", "), Ref("member")), 0, None))), Lit("}")
    ),
    "array": seq(
        Lit("["), optional(seq(Ref("value"), Repeat(seq(Lit(", "), Ref("value")), 0, None))), Lit("]")
    ),
}
TYPE_RULES = {
    name: Ref(name) for name in ("string", "integer", "number", "boolean", "null", "object", "array")
}


def dumps(value: object) -> str:
    """The one way in which a fixed value is written."""
    return json.dumps(value, ensure_ascii=False)


def one_of(words: Iterable[str]) -> Rule:
    """One of the words, written as a tree of prefixes so that a reader follows one branch at a time.

    Below MAX_FORKS forks the rest is a plain list, so that words that are prefixes of each other nest no deeper.
    """
    return _branch(sorted(set(words)), 0, 0)


def _branch(words: list[str], start: int, forks: int) -> Rule:
    """One of the sorted words, which are alike before `start`."""
    if len(words) == 1 or forks >= MAX_FORKS:
        return alt(Lit(word[start:]) for word in words)
    first, last = words[0], words[-1]
    end = start
    while end < len(first) and first[end : end + 1] == last[end : end + 1]:
        end += 1
    options: list[Rule] = []
    rest = words
    if len(first) == end:
        options.append(EMPTY)
        rest = words[1:]
    for _, group in groupby(rest, key=lambda word: word[end]):
        options.append(_branch(list(group), end, forks + 1))
    return seq(Lit(first[start:end]), alt(options))
