"""Finite automata over characters: from regular expressions, combined, measured.

An automaton is a table: for each state the sets of characters that lead on. A missing set leads nowhere. States
from which nothing can be accepted are taken out, so an automaton without states accepts nothing.
All work is counted against a budget: `TooLarge` instead of a slow answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from edge.grammar.charsets import ANY, complement, intersection, partition, union
from edge.grammar.kept import kept
from edge.grammar.regex import Cat, End, Loop, Node, Or, Regex, Set, Start
from edge.grammar.rules import Ranges

MAX_NFA = 6_000
MAX_STATES = 1_500
MAX_WORK = 150_000  # states of the non-deterministic automaton looked at, in all

State = TypeVar("State", bound=Hashable)


class TooLarge(ValueError):
    """The automaton would have too many states."""


@dataclass(frozen=True, slots=True)
class Automaton:
    """Deterministic; state 0 starts. `edges[s]` are disjoint (characters, next state)."""

    edges: tuple[tuple[tuple[Ranges, int], ...], ...]
    accepting: frozenset[int]

    def accepts(self, text: str) -> bool:
        state = 0
        for char in text:
            point = ord(char)
            for ranges, target in self.edges[state] if self.edges else ():
                if any(low <= point <= high for low, high in ranges):
                    state = target
                    break
            else:
                return False
        return state in self.accepting

    @property
    def is_empty(self) -> bool:
        return not self.accepting


EVERYTHING = Automaton((((ANY, 0),),), frozenset({0}))
NOTHING = Automaton((), frozenset())


def explored(
    start: State, follow: Callable[[State], Iterable[tuple[Ranges, State]]], accepts: Callable[[State], bool]
) -> Automaton:
    """The automaton whose states are found by following edges from `start`; made small afterwards."""
    numbers: dict[State, int] = {start: 0}
    waiting = deque([start])
    edges: list[list[tuple[Ranges, int]]] = []
    accepting: set[int] = set()
    while waiting:
        state = waiting.popleft()
        if accepts(state):
            accepting.add(numbers[state])
        row: dict[int, Ranges] = {}
        for ranges, target in follow(state):
            if not ranges:
                continue
            if target not in numbers:
                if len(numbers) >= MAX_STATES:
                    raise TooLarge(f"more than {MAX_STATES} states")
                numbers[target] = len(numbers)
                waiting.append(target)
            number = numbers[target]
            row[number] = union(row[number], ranges) if number in row else ranges
        edges.append([(ranges, number) for number, ranges in row.items()])
    return _reduced(edges, accepting)


def _reduced(edges: list[list[tuple[Ranges, int]]], accepting: set[int]) -> Automaton:
    """Without states that lead nowhere, and with equal states made one."""
    before: list[list[int]] = [[] for _ in edges]
    for state, row in enumerate(edges):
        for _, target in row:
            before[target].append(state)
    alive, waiting = set(accepting), list(accepting)
    while waiting:
        for source in before[waiting.pop()]:
            if source not in alive:
                alive.add(source)
                waiting.append(source)
    if 0 not in alive:
        return NOTHING
    # What a state leads to is mostly found after it, so one pass backwards makes most equal states one. Equal
    # states on different loops stay apart: correct, only not the smallest.
    same: dict[int, int] = {}
    signatures: dict[Hashable, int] = {}
    rows: dict[int, tuple[tuple[Ranges, int], ...]] = {}
    for state in sorted(alive, reverse=True):
        row = _merged(
            (ranges, same.get(target, target)) for ranges, target in edges[state] if target in alive
        )
        row = [(ranges, -1 if target == state else target) for ranges, target in row]
        same[state] = signatures.setdefault((state in accepting, frozenset(row)), state)
        rows[state] = tuple(row)
    numbers = {0: 0} if same[0] == 0 else {same[0]: 0}
    for state in sorted(alive):
        numbers.setdefault(same[state], len(numbers))
    table: list[tuple[tuple[Ranges, int], ...]] = [()] * len(numbers)
    for state, number in numbers.items():
        targets = ((ranges, state if target == -1 else same[target]) for ranges, target in rows[state])
        table[number] = tuple((ranges, numbers[target]) for ranges, target in targets)
    return Automaton(tuple(table), frozenset(numbers[same[state]] for state in accepting))


def _merged(row: Iterable[tuple[Ranges, int]]) -> list[tuple[Ranges, int]]:
    by_target: dict[int, list[Ranges]] = {}
    for ranges, target in row:
        by_target.setdefault(target, []).append(ranges)
    return [(union(*sets) if len(sets) > 1 else sets[0], target) for target, sets in by_target.items()]


@kept
def both(left: Automaton, right: Automaton) -> Automaton:
    """Texts that both accept."""
    if left is EVERYTHING or right is EVERYTHING:
        return right if left is EVERYTHING else left
    if left.is_empty or right.is_empty:
        return NOTHING

    def follow(state: tuple[int, int]) -> Iterable[tuple[Ranges, tuple[int, int]]]:
        for first, a in left.edges[state[0]]:
            for second, b in right.edges[state[1]]:
                if common := intersection(first, second):
                    yield common, (a, b)

    return explored((0, 0), follow, lambda state: state[0] in left.accepting and state[1] in right.accepting)


@kept
def negation(automaton: Automaton) -> Automaton:
    """Texts that it does not accept."""
    sink = len(automaton.edges)

    def follow(state: int) -> Iterable[tuple[Ranges, int]]:
        row = automaton.edges[state] if state < sink else ()
        yield from row
        yield complement(union(*(ranges for ranges, _ in row))), sink

    return explored(0, follow, lambda state: state not in automaton.accepting)


def either(automata: Iterable[Automaton]) -> Automaton:
    """Texts that at least one accepts."""
    distinct = list(dict.fromkeys(automata))
    if EVERYTHING in distinct:
        return EVERYTHING
    found = NOTHING
    for each in distinct:
        found = each if found is NOTHING else negation(both(negation(found), negation(each)))
    return found


def words_automaton(words: Iterable[str]) -> Automaton:
    """Exactly these words."""
    nodes: list[dict[str, int]] = [{}]
    ends: set[int] = set()
    for word in words:
        state = 0
        for char in word:
            if char not in nodes[state]:
                if len(nodes) >= 4 * MAX_STATES:
                    raise TooLarge("too many words")
                nodes[state][char] = len(nodes)
                nodes.append({})
            state = nodes[state][char]
        ends.add(state)
    rows = tuple(
        tuple(
            (((ord(char), ord(char)),), target)
            for char, target in node.items()
            if not 0xD800 <= ord(char) < 0xE000
        )
        for node in nodes
    )
    return Automaton(rows, frozenset(ends)) if ends else NOTHING


def length_automaton(low: int, high: int | None) -> Automaton:
    """Texts of `low` to `high` characters."""
    last = low if high is None else high
    if last >= MAX_STATES:
        raise TooLarge("too long to count")
    rows = [((ANY, state + 1),) for state in range(last)]
    end = ((ANY, last),) if high is None else ()
    return Automaton((*rows, end), frozenset(range(low, last + 1)))


def length_bounds(automaton: Automaton) -> tuple[int, int | None]:
    """The fewest and the most characters of an accepted text; None without bound."""
    depth = {0: 0}
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        for _, target in automaton.edges[state]:
            if target not in depth:
                depth[target] = depth[state] + 1
                waiting.append(target)
    low = min(depth[state] for state in automaton.accepting)
    longest: dict[int, int] = {}
    state_stack: list[tuple[int, bool]] = [(0, False)]
    open_states: set[int] = set()
    while state_stack:
        state, leaving = state_stack.pop()
        if leaving:
            open_states.discard(state)
            longest[state] = max((longest[target] + 1 for _, target in automaton.edges[state]), default=0)
            continue
        if state in longest:
            continue
        if state in open_states:
            return low, None
        open_states.add(state)
        state_stack.append((state, True))
        for _, target in automaton.edges[state]:
            if target in open_states:
                return low, None
            if target not in longest:
                state_stack.append((target, False))
    return low, longest[0]


@kept
def regex_automaton(regex: Regex) -> Automaton:
    """Texts in which a search for the expression succeeds. Raises TooLarge."""
    found = _search(regex.node, at_start=False)
    for node, negative in regex.ahead:
        condition = _search(node, at_start=True)
        found = both(found, negation(condition) if negative else condition)
    return found


class _Nfa:
    """Thompson's construction. Edges carry a set of characters, or one of the conditions below."""

    def __init__(self) -> None:
        self.chars: list[list[tuple[Ranges, int]]] = []
        self.free: list[list[int]] = []
        self.at_start: list[list[int]] = []  # only before the first character
        self.at_end: list[list[int]] = []  # nothing may be read behind

    def state(self) -> int:
        if len(self.chars) >= MAX_NFA:
            raise TooLarge(f"more than {MAX_NFA} positions")
        self.chars.append([])
        for table in (self.free, self.at_start, self.at_end):
            table.append([])
        return len(self.chars) - 1

    def add(self, node: Node, source: int) -> int:
        """Adds the tree behind `source`; the state behind it."""
        match node:
            case Cat(parts):
                for part in parts:
                    source = self.add(part, source)
                return source
            case Or(options):
                target = self.state()
                for option in options:
                    self.free[self.add(option, source)].append(target)
                return target
            case Loop(part, low, high):
                return self._add_loop(part, low, high, source)
            case Set(ranges):
                target = self.state()
                self.chars[source].append((ranges, target))
            case Start():
                target = self.state()
                self.at_start[source].append(target)
            case End():
                target = self.state()
                self.at_end[source].append(target)
        return target

    def _add_loop(self, part: Node, low: int, high: int | None, source: int) -> int:
        for _ in range(low):
            entry = self.state()  # counts even where the part is empty, which bounds the work
            self.free[source].append(entry)
            source = self.add(part, entry)
        if high is None:
            loop, target = self.state(), self.state()
            self.free[source].append(loop)
            self.free[self.add(part, loop)].append(loop)
            self.free[loop].append(target)
            return target
        target = self.state()
        for _ in range(high - low):
            self.free[source].append(target)
            entry = self.state()  # so that leaving here cannot re-enter
            self.free[source].append(entry)
            source = self.add(part, entry)
        self.free[source].append(target)
        return target


def _search(node: Node, *, at_start: bool) -> Automaton:
    """The subset construction. A state is a set of (position, whether `$` was passed)."""
    nfa = _Nfa()
    first = nfa.state()
    if not at_start:
        nfa.chars[first].append((ANY, first))
    final = nfa.add(node, first)
    work = 0

    def closed(seeds: Iterable[tuple[int, bool]], *, beginning: bool) -> frozenset[tuple[int, bool]]:
        nonlocal work
        found = set(seeds)
        waiting = list(found)
        while waiting:
            position, ended = waiting.pop()
            targets = [(target, ended) for target in nfa.free[position]]
            targets += [(target, True) for target in nfa.at_end[position]]
            if beginning:
                targets += [(target, ended) for target in nfa.at_start[position]]
            fresh = [target for target in targets if target not in found]
            found.update(fresh)
            waiting += fresh
        work += len(found)
        if work > MAX_WORK:
            raise TooLarge("too much work to make deterministic")
        # Once the expression matched with no demand on what follows, everything may follow.
        return frozenset({(final, False)}) if (final, False) in found else frozenset(found)

    def follow(state: frozenset[tuple[int, bool]]) -> Iterable[tuple[Ranges, frozenset[tuple[int, bool]]]]:
        if (final, False) in state:
            return [(ANY, state)]
        moves = [move for position, ended in state if not ended for move in nfa.chars[position]]
        out: list[tuple[Ranges, frozenset[tuple[int, bool]]]] = []
        for ranges in partition(span for span, _ in moves):
            probe = ranges[0][0]
            seeds = [
                (target, False) for spans, target in moves if any(low <= probe <= high for low, high in spans)
            ]
            if seeds:
                out.append((ranges, closed(seeds, beginning=False)))
        return out

    start = closed([(first, False)], beginning=True)
    return explored(start, follow, lambda state: (final, False) in state or (final, True) in state)
