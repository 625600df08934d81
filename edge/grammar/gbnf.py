"""Writes rules as GBNF, the grammar language that llama.cpp reads.

llama.cpp expands a repetition into as many copies and refuses more than 2,000, so a large one is written as
blocks: `x{0,5000}` becomes choices over blocks of about the square root. That keeps the text small and leaves
at most four parses open at a time.
"""

from __future__ import annotations

from math import isqrt

from edge.grammar.kept import kept
from edge.grammar.rules import Alt, Chars, Grammar, Lit, Ref, Repeat, Rule, Seq

INLINE_COUNT = 64  # repetitions up to here are written as they are
MAX_COUNT = 1_000_000  # blocks of 1,000 times 1,000 blocks, each below llama.cpp's limit

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CLASS_ESCAPES = {"\\": "\\\\", "]": "\\]", "[": "\\[", "-": "\\x2D", "^": "\\x5E"}


def to_gbnf(grammar: Grammar) -> str:
    """The grammar as GBNF text whose rule `root` is the grammar's root."""
    return _Writer().write(grammar)


class _Writer:
    """Collects the lines of one grammar and the helper rules that large repetitions need."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._helpers: dict[str, str] = {}

    def write(self, grammar: Grammar) -> str:
        self._lines.append(f"root ::= {grammar.root}" if grammar.root != "root" else "")
        for name, rule in grammar.rules.items():
            self._lines.append(f"{name} ::= {self._top(rule)}")
        return "\n".join(line for line in self._lines if line) + "\n"

    def _top(self, rule: Rule) -> str:
        return (
            " | ".join(map(self._sequence, rule.options)) if isinstance(rule, Alt) else self._sequence(rule)
        )

    def _sequence(self, rule: Rule) -> str:
        return " ".join(map(self._item, rule.parts)) if isinstance(rule, Seq) else self._item(rule)

    def _item(self, rule: Rule) -> str:
        match rule:
            case Lit(text):
                return literal(text)
            case Chars():
                return _char_class(rule)
            case Ref(name):
                return name
            case Repeat(part, low, high):
                return self._repeat(part, low, high)
            case _:
                return f"({self._top(rule)})"

    def _repeat(self, part: Rule, low: int, high: int | None) -> str:
        atom = self._atom(part)
        if high is None:
            return f"{atom}*" if low == 0 else f"{self._exactly(atom, low)} {atom}*"
        pieces = [self._exactly(atom, low), self._up_to(atom, high - low)]
        return " ".join(piece for piece in pieces if piece) or '""'

    def _exactly(self, atom: str, count: int) -> str:
        if count <= INLINE_COUNT:
            return {0: "", 1: atom}.get(count, f"{atom}{{{count}}}")
        size = isqrt(count)
        blocks, rest = divmod(count, size)
        block = self._helper(f"{atom}{{{size}}}")
        return f"{block}{{{blocks}}} {self._exactly(atom, rest)}".strip()

    def _up_to(self, atom: str, count: int) -> str:
        if count == 0:
            return ""
        if count <= INLINE_COUNT:
            return f"{atom}?" if count == 1 else f"{atom}{{0,{count}}}"
        size = isqrt(count)
        blocks, rest = divmod(count, size)
        block = self._helper(f"{atom}{{{size}}}")
        tail = self._up_to_inline(atom, rest)
        return f"({block}{{0,{blocks - 1}}} {atom}{{0,{size - 1}}} | {block}{{{blocks}}} {tail})"

    @staticmethod
    def _up_to_inline(atom: str, count: int) -> str:
        return f"{atom}{{0,{count}}}" if count else ""

    def _atom(self, part: Rule) -> str:
        """One symbol that stands for the part: llama.cpp multiplies a count by the rules below it."""
        if isinstance(part, Ref | Chars) or (isinstance(part, Lit) and len(part.text) == 1):
            return self._item(part)
        return self._helper(self._top(part))

    def _helper(self, body: str) -> str:
        name = self._helpers.get(body)
        if name is None:
            name = self._helpers[body] = f"x{len(self._helpers)}"
            self._lines.append(f"{name} ::= {body}")
        return name


# The same few texts and sets stand in most grammars.
@kept
def literal(text: str) -> str:
    """The text as a GBNF string literal."""
    return '"' + "".join(_escaped(char, _ESCAPES) for char in text) + '"'


@kept
def _char_class(rule: Chars) -> str:
    return "[" + "".join(_range(low, high) for low, high in rule.ranges) + "]"


def _range(low: int, high: int) -> str:
    first, last = (_escaped(chr(point), _CLASS_ESCAPES) for point in (low, high))
    if low == high:
        return first
    return f"{first}{last}" if high == low + 1 else f"{first}-{last}"


def _escaped(char: str, escapes: dict[str, str]) -> str:
    if char in escapes:
        return escapes[char]
    point = ord(char)
    if 0x20 <= point < 0x7F:
        return char
    if point <= 0xFF:
        return f"\\x{point:02X}"
    return f"\\u{point:04X}" if point <= 0xFFFF else f"\\U{point:08X}"
