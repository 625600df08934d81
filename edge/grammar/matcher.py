"""Follows a text through a grammar, character by character: what may come, what must come, can it end?

The reader keeps all parses at once, as llama.cpp does: each is a stack of rules still to be read. Stacks and sets
of stacks are shared and remembered, so that text seen before costs one dictionary look-up a character.
Positions never change; trying a continuation needs no undo.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from edge.grammar.lengths import rule_length, shortest_lengths
from edge.grammar.rules import Alt, Chars, Grammar, Lit, Ranges, Ref, Repeat, Rule, Seq

MAX_REMEMBERED = 30_000  # things that one matcher holds; beyond it the memory starts afresh
_TELL = 1_000  # things between two words of growth
_BYTES = 250  # of one thing, on average; 170 to 250 as measured
MAX_FORCED = 4_000  # characters; a caller asks again from there


class _Stack:
    """A rule to read next, how much of it is read, and the stack below. Compared by identity."""

    __slots__ = ("below", "done", "heads", "length", "rule")

    def __init__(self, rule: Rule, done: int, below: _Stack | None) -> None:
        self.rule, self.done, self.below = rule, done, below
        self.heads: tuple[_Stack | None, ...] | None = None
        self.length = -1


class Position:
    """A place in a text that follows the grammar so far. Get one from `Matcher.start`."""

    __slots__ = ("_heads", "_matcher", "_next", "is_complete")

    def __init__(self, matcher: Matcher, heads: tuple[_Stack | None, ...]) -> None:
        self._matcher = matcher
        self._heads = tuple(head for head in heads if head is not None)
        self._next: dict[str, Position | None] = {}
        self.is_complete: Final = len(self._heads) < len(heads)

    def after(self, text: str) -> Position | None:
        """The place behind the text, or None if the grammar does not allow it here."""
        place: Position | None = self
        for char in text:
            if place is None:
                return None
            place = place._step(char)
        return place

    def allows(self, text: str) -> bool:
        """Whether some text of the grammar goes on like this."""
        return self.after(text) is not None

    def forced(self) -> str:
        """The longest text that every continuation starts with; empty where the text may end or has a choice."""
        place, text = self, list[str]()
        while len(text) < MAX_FORCED and (char := place._only_char()) is not None:
            following = place._step(char)
            assert following is not None
            text.append(char)
            place = following
        return "".join(text)

    def shortest(self) -> str:
        """A completion with the fewest characters."""
        return self._matcher._shortest(self)

    def shortest_length(self) -> int:
        """Characters of the shortest completion; much cheaper than the completion itself."""
        return 0 if self.is_complete else min(map(self._matcher._length, self._heads))

    def next_ranges(self) -> Ranges:
        """The code points that may come next, as inclusive ranges in no order."""
        return tuple(span for head in self._heads for span in _first(head))

    def _only_char(self) -> str | None:
        if self.is_complete or not self._heads:
            return None
        spans = set(self.next_ranges())
        if len(spans) != 1:
            return None
        low, high = spans.pop()
        return chr(low) if low == high else None

    def _step(self, char: str) -> Position | None:
        try:
            return self._next[char]
        except KeyError:
            following = self._matcher._step(self, char)
            self._next[char] = following
            return following


class Matcher:
    """The reader of one grammar. Its memory grows with the texts that it has seen, up to a bound.

    on_growth: told by how many bytes, about; less than nothing where it has forgotten.
    """

    def __init__(self, grammar: Grammar, on_growth: Callable[[int], None] | None = None) -> None:
        self._rules = grammar.rules
        self._grammar = grammar
        self._lengths: dict[str, int] | None = None
        self._stacks: dict[tuple[int, int, int], _Stack] = {}
        self._positions: dict[frozenset[int], Position] = {}
        self._on_growth = on_growth
        # Stacks, positions, what these are read by next, and steps: in a string each character leads on.
        self._n_held = self._n_told = 0
        self.start: Final = self._position([self._stack(Ref(grammar.root), 0, None)])

    def _stack(self, rule: Rule, done: int, below: _Stack | None) -> _Stack:
        key = (id(rule), done, id(below))
        known = self._stacks.get(key)
        if known is None or known.rule is not rule or known.below is not below:
            known = self._stacks[key] = _Stack(rule, done, below)
            self._n_held += 1
        return known

    def _position(self, stacks: list[_Stack | None]) -> Position:
        heads = dict.fromkeys(
            head for stack in stacks for head in ((None,) if stack is None else self._heads(stack))
        )
        key = frozenset(map(id, heads))
        known = self._positions.get(key)
        if known is None:
            known = self._positions[key] = Position(self, tuple(heads))
            self._n_held += 1 + len(heads)
        return known

    def _make_room(self) -> None:
        """Forgets everything but the start when there is too much; who stands somewhere goes on from there."""
        self._n_held += 1
        if self._n_held > MAX_REMEMBERED:
            # From the start each place ever reached would still be held, step by step.
            self.start._next.clear()
            self._positions, self._stacks, self._n_held = {}, {}, 0
        n_more = self._n_held - self._n_told
        if self._on_growth is not None and not -_TELL < n_more < _TELL:
            self._n_told = self._n_held
            self._on_growth(n_more * _BYTES)

    def _step(self, place: Position, char: str) -> Position | None:
        self._make_room()
        point = ord(char)
        following = [_behind(self, head) for head in place._heads if _takes(head, char, point)]
        return self._position(following) if following else None

    def _heads(self, stack: _Stack) -> tuple[_Stack | None, ...]:
        """The stacks whose top reads a character, reachable without reading; None where everything is read."""
        if stack.heads is None:
            found: dict[_Stack | None, None] = {}
            waiting: list[_Stack | None] = [stack]
            seen: set[_Stack | None] = set()
            while waiting:
                top = waiting.pop()
                if top in seen:
                    continue
                seen.add(top)
                if (
                    top is None
                    or isinstance(top.rule, Chars)
                    or (isinstance(top.rule, Lit) and top.rule.text)
                ):
                    found[top] = None
                else:
                    waiting.extend(reversed(self._unfolded(top)))
            stack.heads = tuple(found)
            self._n_held += len(found)
        return stack.heads

    def _unfolded(self, top: _Stack) -> list[_Stack | None]:
        """What stands in place of a stack whose top reads no character itself."""
        below = top.below
        match top.rule:
            case Ref(name):
                return [self._stack(self._rules[name], 0, below)]
            case Alt(options):
                return [self._stack(option, 0, below) for option in options]
            case Seq(parts):
                stack = below
                for part in reversed(parts):
                    stack = self._stack(part, 0, stack)
                return [stack]
            case Repeat():
                return self._unfolded_repeat(top.rule, top.done, below)
            case _:
                return [below]  # an empty literal

    def _unfolded_repeat(self, rule: Repeat, done: int, below: _Stack | None) -> list[_Stack | None]:
        out: list[_Stack | None] = []
        if rule.high is None or done < rule.high:
            # Without an upper bound counting ends at the lower one, so that long texts come back to known stacks.
            count = done + 1 if rule.high is not None or done < rule.low else done
            more = count == rule.high
            out.append(self._stack(rule.part, 0, below if more else self._stack(rule, count, below)))
        if done >= rule.low:
            out.append(below)
        return out

    def _shortest(self, place: Position) -> str:
        text: list[str] = []
        while not place.is_complete:
            head = min(place._heads, key=self._length)
            char = _nice_char(head)
            text.append(char)
            following = place._step(char)
            assert following is not None
            place = following
        return "".join(text)

    def _length(self, stack: _Stack) -> int:
        """Characters of the shortest text that empties the stack."""
        if self._lengths is None:
            self._lengths = shortest_lengths(self._grammar)
        pending: list[_Stack] = []
        top: _Stack | None = stack
        while top is not None and top.length < 0:
            pending.append(top)
            top = top.below
        total = 0 if top is None else top.length
        for each in reversed(pending):
            total += _remaining(each, self._lengths)
            each.length = total
        return total


def _remaining(stack: _Stack, lengths: dict[str, int]) -> int:
    if isinstance(stack.rule, Lit):
        return len(stack.rule.text) - stack.done
    if isinstance(stack.rule, Repeat):
        return max(stack.rule.low - stack.done, 0) * rule_length(stack.rule.part, lengths)
    return rule_length(stack.rule, lengths)


def _takes(head: _Stack, char: str, point: int) -> bool:
    rule = head.rule
    if isinstance(rule, Lit):
        return rule.text[head.done] == char
    assert isinstance(rule, Chars)
    index = bisect_right(rule.ranges, (point, 0x110000)) - 1
    return index >= 0 and rule.ranges[index][1] >= point


def _behind(matcher: Matcher, head: _Stack) -> _Stack | None:
    rule = head.rule
    if isinstance(rule, Lit) and head.done + 1 < len(rule.text):
        return matcher._stack(rule, head.done + 1, head.below)
    return head.below


def _first(head: _Stack) -> Ranges:
    rule = head.rule
    if isinstance(rule, Lit):
        return ((ord(rule.text[head.done]),) * 2,)
    assert isinstance(rule, Chars)
    return rule.ranges


def _nice_char(head: _Stack) -> str:
    """A character that the head reads; a letter or digit where there is one, for the reader's sake."""
    spans = _first(head)
    for wish in "a0A ":
        if any(low <= ord(wish) <= high for low, high in spans):
            return wish
    return chr(spans[0][0])
