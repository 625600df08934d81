"""Reads ECMA-262 regular expressions, as JSON Schema's `pattern` uses them, into a small tree.

Not covered, and said so by `RegexUnsupported`: backreferences, lookbehind, word boundaries, Unicode properties
other than a few common ones, and lookahead anywhere but at the start of the expression.
`RegexInvalid` is an expression that no engine takes.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from edge.grammar.charsets import ANY, DIGITS, LINE_ENDS, PYTHON_SPACE, SPACE, WORD, complement, union
from edge.grammar.kept import kept
from edge.grammar.rules import Ranges, normalised

MAX_SOURCE = 20_000  # characters
MAX_DEPTH = 80  # groups within groups


class RegexInvalid(ValueError):
    """Not a regular expression."""


class RegexUnsupported(ValueError):
    """A regular expression with a construct that no finite automaton here stands for."""


@dataclass(frozen=True, slots=True)
class Set:
    """One character of a set; an empty set matches nothing."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Cat:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    part: Node
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Start:
    """`^`"""


@dataclass(frozen=True, slots=True)
class End:
    """`$`"""


Node: TypeAlias = Set | Cat | Or | Loop | Start | End


@dataclass(frozen=True, slots=True)
class Regex:
    """What a search for the expression demands: the tree, and lookaheads that hold from the start of the text."""

    node: Node
    ahead: tuple[tuple[Node, bool], ...] = ()  # (tree that must match from the start, whether it must not)


@kept
def parse_regex(source: str) -> Regex:
    """The tree of the expression. Raises RegexInvalid or RegexUnsupported, with a reason in a few words."""
    if len(source) > MAX_SOURCE:
        raise RegexUnsupported(f"longer than {MAX_SOURCE} characters")
    return _Parser(source).whole()


_CONTROL = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_CLASSES = {"d": DIGITS, "w": WORD, "s": SPACE}


@lru_cache(maxsize=3)
def _wide(name: str) -> Ranges:
    r"""What `\d`, `\w` or `\s` may mean to any engine: Python's, which `jsonschema` uses, counts all of Unicode.

    A negated class excludes all of it, so that a text is right for either reading.
    """
    if name == "s":
        return union(SPACE, PYTHON_SPACE)
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1))))
    found = ((ord(run[0][0]), ord(run[0][-1])) for run in re.finditer(rf"\{name}+", every))
    return union(normalised(found), _CLASSES[name])


class _Parser:
    def __init__(self, source: str) -> None:
        self._source, self._at, self._depth = source, 0, 0
        self._ahead: list[tuple[Node, bool]] = []

    def whole(self) -> Regex:
        node = self._or()
        if self._at < len(self._source):
            raise RegexInvalid(f"unmatched ')' at {self._at}")
        return Regex(node, tuple(self._ahead))

    def _peek(self, text: str) -> bool:
        return self._source.startswith(text, self._at)

    def _take(self, text: str) -> bool:
        if self._peek(text):
            self._at += len(text)
            return True
        return False

    def _next(self) -> str:
        if self._at >= len(self._source):
            raise RegexInvalid("ends too early")
        self._at += 1
        return self._source[self._at - 1]

    def _or(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RegexUnsupported(f"groups nested deeper than {MAX_DEPTH}")
        options = [self._cat()]
        while self._take("|"):
            options.append(self._cat())
        self._depth -= 1
        return options[0] if len(options) == 1 else Or(tuple(options))

    def _cat(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._source) and not self._peek("|") and not self._peek(")"):
            if self._peek("(?=") or self._peek("(?!"):
                self._lookahead(parts)
            elif (atom := self._atom()) is not None:
                parts.append(self._quantified(atom))
        return parts[0] if len(parts) == 1 else Cat(tuple(parts))

    def _lookahead(self, before: list[Node]) -> None:
        """At the start of the text a lookahead is one more expression that must, or must not, match there."""
        if self._depth != 1 or before != [Start()]:
            raise RegexUnsupported("a lookahead that is not right behind the leading ^")
        negative = self._source[self._at + 2] == "!"
        self._at += 3
        node = self._or()
        if not self._take(")"):
            raise RegexInvalid("a group is not closed")
        if self._ahead_in_branch():
            raise RegexUnsupported("a lookahead in one branch of an alternation")
        self._ahead.append((node, negative))

    def _ahead_in_branch(self) -> bool:
        """Whether a `|` stands outside all groups: then the lookahead holds for one branch only."""
        depth, in_class, at = 0, False, 0
        while at < len(self._source):
            char = self._source[at]
            if char == "\\":
                at += 1
            elif in_class:
                in_class = char != "]"
            elif char == "[":
                in_class = True
            elif char in "()":
                depth += 1 if char == "(" else -1
            elif char == "|" and depth == 0:
                return True
            at += 1
        return False

    def _atom(self) -> Node | None:
        char = self._next()
        match char:
            case "^":
                return Start()
            case "$":
                return End()
            case ".":
                return Set(complement(LINE_ENDS))
            case "[":
                return Set(self._char_class())
            case "(":
                return self._group()
            case "\\":
                return Set(self._escape(in_class=False))
            case "*" | "+" | "?":
                raise RegexInvalid(f"nothing to repeat before {char!r} at {self._at - 1}")
            case _:
                return Set(_one(char))

    def _group(self) -> Node:
        if self._take("?"):
            if self._peek("<=") or self._peek("<!"):
                raise RegexUnsupported("a lookbehind")
            if self._take("<") or self._take("P<"):
                end = self._source.find(">", self._at)
                if end < 0:
                    raise RegexInvalid("a group name is not closed")
                self._at = end + 1
            elif not self._take(":"):
                raise RegexUnsupported(f"the group (?{self._source[self._at : self._at + 1]}")
        node = self._or()
        if not self._take(")"):
            raise RegexInvalid("a group is not closed")
        return node

    def _quantified(self, atom: Node) -> Node:
        if (bounds := self._bounds()) is None:
            return atom
        self._take("?")  # laziness changes what is captured, not what is matched
        if isinstance(atom, Start | End):
            raise RegexUnsupported("a repeated anchor")
        low, high = bounds
        if high is not None and high < low:
            raise RegexInvalid(f"a repetition from {low} to {high}")
        if self._bounds() is not None:
            raise RegexInvalid("a repetition of a repetition")
        return Loop(atom, low, high)

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        if not self._peek("{"):
            return None
        end = self._source.find("}", self._at)
        low, comma, high = self._source[self._at + 1 : end].partition(",")
        digits = low.isascii() and low.isdigit() and (not high or (high.isascii() and high.isdigit()))
        if end < 0 or not digits:
            return None  # then `{` is a character like any other
        self._at = end + 1
        if len(low) > 9 or len(high) > 9:
            raise RegexUnsupported("a repetition of more than 999,999,999")
        return int(low), (int(high) if high else None) if comma else int(low)

    def _escape(self, *, in_class: bool) -> Ranges:
        char = self._next()
        if char.lower() in _CLASSES:
            return _CLASSES[char] if char.islower() else complement(_wide(char.lower()))
        if char in _CONTROL and not (
            char == "0" and self._at < len(self._source) and self._source[self._at].isdigit()
        ):
            return _one(chr(_CONTROL[char]))
        if char == "b" and in_class:
            return _one("\b")
        match char:
            case "b" | "B":
                raise RegexUnsupported("a word boundary")
            case "c":
                return _one(chr(ord(self._next()) % 32))
            case "x":
                return _one(chr(self._hex(2)))
            case "u":
                return self._unicode_escape()
            case "p" | "P":
                ranges = _property(self._property_name())
                return ranges if char == "p" else complement(ranges)
            case "A" | "Z" | "z":
                raise RegexUnsupported(f"\\{char}, which ECMA-262 does not know")
        if char.isdigit() or char == "k":
            raise RegexUnsupported("a backreference")
        return _one(char)

    def _unicode_escape(self) -> Ranges:
        if self._take("{"):
            end = self._source.find("}", self._at)
            self._at, length = end + 1, end - self._at
            return _one(_char(self._source[self._at - 1 - length : self._at - 1]))
        point = self._hex(4)
        if 0xD800 <= point < 0xDC00 and self._take("\\u"):
            return _one(chr(0x10000 + ((point - 0xD800) << 10) + (self._hex(4) - 0xDC00)))
        return normalised([(point, point)])

    def _hex(self, count: int) -> int:
        digits = self._source[self._at : self._at + count]
        self._at += count
        if len(digits) < count:
            raise RegexInvalid("ends within an escape")
        return ord(_char(digits))

    def _property_name(self) -> str:
        if not self._take("{"):
            raise RegexUnsupported("\\p without a name")
        end = self._source.find("}", self._at)
        if end < 0:
            raise RegexInvalid("a property name is not closed")
        name, self._at = self._source[self._at : end], end + 1
        return name

    def _char_class(self) -> Ranges:
        negated = self._take("^")
        found: list[Ranges] = []
        while not self._take("]"):
            if negated and self._source[self._at : self._at + 2] in ("\\d", "\\w", "\\s"):
                found.append(_wide(self._source[self._at + 1]))
                self._at += 2
                continue
            low = self._class_atom()
            if self._peek("-") and not self._peek("-]"):
                self._at += 1
                high = self._class_atom()
                if len(low) == 1 == len(high) and low[0][0] == low[0][1] and high[0][0] == high[0][1]:
                    if high[0][0] < low[0][0]:
                        raise RegexInvalid("a range that runs backwards")
                    found.append(normalised([(low[0][0], high[0][0])]))
                else:
                    found += [low, _one("-"), high]
            else:
                found.append(low)
        ranges = union(*found)
        return complement(ranges) if negated else ranges

    def _class_atom(self) -> Ranges:
        char = self._next()
        return self._escape(in_class=True) if char == "\\" else _one(char)


def _one(char: str) -> Ranges:
    return normalised([(ord(char), ord(char))])


def _char(digits: str) -> str:
    try:
        return chr(int(digits, 16))
    except (ValueError, OverflowError):
        raise RegexInvalid(f"{digits!r} is not a code point") from None


_LONG_NAMES = {"Letter": "L", "Number": "N", "Punctuation": "P", "Symbol": "S", "Separator": "Z"}
_LONG_NAMES |= {
    "Uppercase_Letter": "Lu",
    "Lowercase_Letter": "Ll",
    "Decimal_Number": "Nd",
    "Mark": "M",
    "Other": "C",
}


@lru_cache(maxsize=32)
def _property(name: str) -> Ranges:
    """The characters of a general category, by the Unicode version of this Python."""
    if name == "Any":
        return ANY
    if name == "ASCII":
        return ((0, 127),)
    name = name.removeprefix("General_Category=").removeprefix("gc=")
    short = _LONG_NAMES.get(name, name)
    points = range(sys.maxunicode + 1)
    found = (
        [point for point in points if unicodedata.category(chr(point)).startswith(short)]
        if len(short) < 3
        else []
    )
    if not found:
        raise RegexUnsupported(f"\\p{{{name}}}")
    return normalised((point, point) for point in found)
