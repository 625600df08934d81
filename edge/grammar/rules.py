"""The algebra of rules that every grammar is made of.

Six forms say everything: literal text, one character of a set, a sequence, a choice, a bounded repetition,
and a reference to a named rule. Two readers take them: `gbnf` writes text for llama.cpp, `matcher` follows a
text character by character. Nothing here knows JSON.

The part of a repetition never matches the empty text, and no rule reaches itself before a character is read:
llama.cpp refuses both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Ranges: TypeAlias = tuple[tuple[int, int], ...]  # inclusive code points, ascending, disjoint, not adjacent

LAST_CODE_POINT = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)


@dataclass(frozen=True, slots=True)
class Lit:
    """Exactly this text; the empty text matches nothing but itself."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of a non-empty set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Seq:
    """All parts, one after the other."""

    parts: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """One of the options."""

    options: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`part` between `low` and `high` times; `high` None is without end."""

    part: Rule
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Ref:
    """The rule of that name."""

    name: str


Rule: TypeAlias = Lit | Chars | Seq | Alt | Repeat | Ref

EMPTY = Lit("")


@dataclass(frozen=True, slots=True)
class Grammar:
    """Named rules and the name of the one that the whole text follows."""

    rules: dict[str, Rule]
    root: str


def seq(*parts: Rule) -> Rule:
    """A sequence without nesting, empty parts, or neighbouring literals."""
    flat: list[Rule] = []
    for part in parts:
        if type(part) is Seq:
            pieces: tuple[Rule, ...] = part.parts
        else:
            pieces = (part,)
        for piece in pieces:
            if type(piece) is not Lit:
                flat.append(piece)
            elif flat and type(last := flat[-1]) is Lit:
                flat[-1] = Lit(last.text + piece.text)
            elif piece.text:
                flat.append(piece)
    if not flat:
        return EMPTY
    return flat[0] if len(flat) == 1 else Seq(tuple(flat))


def alt(options: Iterable[Rule]) -> Rule:
    """A choice without nesting or repeated options; at least one option is needed."""
    flat = dict.fromkeys(
        inner for option in options for inner in (option.options if isinstance(option, Alt) else (option,))
    )
    if not flat:
        raise ValueError("a choice needs an option")
    return next(iter(flat)) if len(flat) == 1 else Alt(tuple(flat))


def optional(rule: Rule) -> Rule:
    """The rule or nothing."""
    return alt((rule, EMPTY))


def chars(*spans: str | tuple[int, int]) -> Chars:
    """The set of the given characters and inclusive ranges: `chars("-", "09")` is a dash or a digit."""
    ranges = [span if isinstance(span, tuple) else (ord(span[0]), ord(span[-1])) for span in spans]
    return Chars(normalised(ranges))


def normalised(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same code points as ascending, disjoint, non-adjacent ranges, surrogates left out.

    Surrogates are no characters; llama.cpp would decode them from bytes that are not UTF-8.
    """
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        elif low <= high:
            merged.append((low, high))
    first, last = SURROGATES
    out: list[tuple[int, int]] = []
    for low, high in merged:
        if high < first or low > last:
            out.append((low, high))
            continue
        if low < first:
            out.append((low, first - 1))
        if high > last:
            out.append((last + 1, high))
    return tuple(out)
