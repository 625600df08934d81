"""Rules for JSON strings whose content is constrained: by length, by expressions, by exclusion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from edge.grammar.automaton import (
    EVERYTHING,
    Automaton,
    TooLarge,
    both,
    length_automaton,
    length_bounds,
    negation,
    regex_automaton,
    words_automaton,
)
from edge.grammar.charsets import ANY, complement, difference, intersection
from edge.grammar.json_text import PLAIN
from edge.grammar.kept import kept
from edge.grammar.regex import (
    Cat,
    End,
    Loop,
    Node,
    Or,
    RegexInvalid,
    RegexUnsupported,
    Set,
    Start,
    parse_regex,
)
from edge.grammar.rules import Alt, Chars, Lit, Ranges, Ref, Repeat, Rule, alt, normalised, seq

MAX_COUNTED = 1_000_000  # characters; no reply is longer, and a grammar of blocks still holds it
DIRECT_SIZE = 150  # positions of an expression from which on its tree is written out instead of an automaton

_NON_ASCII: Ranges = difference(ANY, ((0, 0x7F),))
_SPECIAL: Ranges = difference(ANY, PLAIN.ranges)
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A regular expression that a string must match, or must not; `pointer` and `keyword` say who wants it."""

    source: str
    negated: bool
    keyword: str
    pointer: str


@dataclass(frozen=True, slots=True)
class StringRule:
    """What a string must satisfy, all at once."""

    low: int = 0
    high: int | None = None
    wanted: tuple[Wanted, ...] = ()
    excluded: tuple[str, ...] = ()
    length_pointer: str = ""

    @property
    def is_free(self) -> bool:
        return self == FREE or replace(self, length_pointer="") == FREE

    def meet(self, other: StringRule) -> StringRule:
        """Both at once."""
        high = (
            other.high
            if self.high is None
            else self.high
            if other.high is None
            else min(self.high, other.high)
        )
        wanted = tuple(dict.fromkeys(self.wanted + other.wanted))
        excluded = tuple(dict.fromkeys(self.excluded + other.excluded))
        return StringRule(
            max(self.low, other.low), high, wanted, excluded, self.length_pointer or other.length_pointer
        )


FREE = StringRule()


@dataclass(frozen=True, slots=True)
class StringLanguage:
    """The content of a string: an automaton, or the tree of an anchored expression; and what it leaves out."""

    automaton: Automaton | None
    tree: Node | None
    late: tuple[tuple[str, str], ...]  # (keyword, pointer) that the rule does not hold

    @property
    def is_empty(self) -> bool:
        return self.automaton is not None and self.automaton.is_empty


@kept
def string_language(rule: StringRule) -> StringLanguage | None:
    """The content that the rule allows; None if nothing but its length matters."""
    if not rule.wanted and not rule.excluded:
        return None
    if (tree := _direct(rule)) is not None:
        return StringLanguage(None, tree, ())
    late: list[tuple[str, str]] = []
    found = EVERYTHING
    for wanted in rule.wanted:
        try:
            found = both(found, _automaton(wanted))
        except (TooLarge, RegexInvalid, RegexUnsupported):
            late.append((wanted.keyword, wanted.pointer))
    if rule.excluded:
        found = both(found, negation(words_automaton(rule.excluded)))
    found, lengths_held = _with_length(found, rule)
    if not lengths_held:
        late.append(("minLength" if rule.high is None else "maxLength", rule.length_pointer))
    return StringLanguage(found, None, tuple(late))


def _automaton(wanted: Wanted) -> Automaton:
    found = regex_automaton(parse_regex(wanted.source))
    return negation(found) if wanted.negated else found


def _with_length(found: Automaton, rule: StringRule) -> tuple[Automaton, bool]:
    if found.is_empty or (rule.low == 0 and rule.high is None):
        return found, True
    low, high = length_bounds(found)
    wanted_low = rule.low if rule.low > low else 0
    wanted_high = rule.high if rule.high is not None and (high is None or high > rule.high) else None
    if wanted_low == 0 and wanted_high is None:
        return found, True
    try:
        return both(found, length_automaton(wanted_low, wanted_high)), True
    except TooLarge:
        return found, False


def _direct(rule: StringRule) -> Node | None:
    """The tree to write out for a single large anchored expression, whose automaton would only be larger."""
    if len(rule.wanted) != 1 or rule.excluded or rule.wanted[0].negated:
        return None
    try:
        regex = parse_regex(rule.wanted[0].source)
    except (RegexInvalid, RegexUnsupported):
        return None
    if regex.ahead or (tree := _unanchored(regex.node)) is None or _size(tree) <= DIRECT_SIZE:
        return None
    low, high = _tree_bounds(tree)
    fits = rule.low <= low and (rule.high is None or (high is not None and high <= rule.high))
    return tree if fits and _is_plain(tree, within_bounded_loop=False) else None


def _unanchored(node: Node) -> Node | None:
    """The tree between a leading `^` and a trailing `$`, or None if it is not anchored like that."""
    if isinstance(node, Or):
        options = [_unanchored(option) for option in node.options]
        return None if None in options else Or(tuple(option for option in options if option is not None))
    if isinstance(node, Cat) and len(node.parts) >= 2 and (node.parts[0], node.parts[-1]) == (Start(), End()):
        return Cat(node.parts[1:-1])
    return None


def _is_plain(node: Node, *, within_bounded_loop: bool) -> bool:
    """No anchors inside, nothing empty repeated, and no counted loop in a counted loop, whose parses multiply."""
    match node:
        case Set(ranges):
            return bool(ranges)
        case Cat(parts):
            return all(_is_plain(part, within_bounded_loop=within_bounded_loop) for part in parts)
        case Or(options):
            return all(_is_plain(option, within_bounded_loop=within_bounded_loop) for option in options)
        case Loop(part, _, high):
            counted = high is not None and high > 4
            if (counted and within_bounded_loop) or _tree_bounds(part)[0] == 0 or (high or 0) > MAX_COUNTED:
                return False
            return _is_plain(part, within_bounded_loop=within_bounded_loop or counted)
        case _:
            return False


def _size(node: Node) -> int:
    match node:
        case Cat(parts) | Or(parts):
            return sum(_size(part) for part in parts)
        case Loop(part, low, high):
            return _size(part) * max(low, high or 1, 1)
        case _:
            return 1


def _tree_bounds(node: Node) -> tuple[int, int | None]:
    """Fewest and most characters that the tree matches."""
    match node:
        case Cat(parts):
            bounds = [_tree_bounds(part) for part in parts]
            highs = [high for _, high in bounds if high is not None]
            return sum(low for low, _ in bounds), sum(highs) if len(highs) == len(bounds) else None
        case Or(options):
            bounds = [_tree_bounds(option) for option in options]
            highs = [high for _, high in bounds if high is not None]
            return min(low for low, _ in bounds), max(highs) if len(highs) == len(bounds) else None
        case Loop(part, low, high):
            fewest, most = _tree_bounds(part)
            return fewest * low, None if high is None or most is None else most * high
        case Set():
            return 1, 1
        case _:
            return 0, 0


class StringWriter:
    """Writes contents as rules into a table of named rules."""

    def __init__(self, rules: dict[str, Rule]) -> None:
        self._rules = rules
        self.states: set[str] = set()  # names of rules made from automata: each can reach an end
        self._known: dict[object, Rule] = {}

    def string(self, rule: StringRule) -> Rule:
        """A whole JSON string, quotes included. The rule must allow something."""
        if rule.is_free:
            return Ref("string")
        language = string_language(rule)
        if language is None:
            high = None if rule.high is None or rule.high > MAX_COUNTED else rule.high
            low = min(rule.low, MAX_COUNTED)
            return seq(Lit('"'), Repeat(Ref("char"), low, high), Lit('"'))
        if language.tree is not None:
            return self._written_out(rule.wanted[0].source, language.tree)
        assert language.automaton is not None
        return self.quoted(language.automaton)

    def quoted(self, automaton: Automaton) -> Rule:
        """A whole JSON string whose content the automaton accepts."""
        return (
            Ref("string") if automaton == EVERYTHING else seq(Lit('"'), self.automaton(automaton, Lit('"')))
        )

    def automaton(self, automaton: Automaton, end: Rule) -> Rule:
        """Texts that the automaton accepts, then `end`: one rule for each state that needs a name."""
        if (known := self._known.get((automaton, end))) is not None:
            return known
        entered = [0] * len(automaton.edges)
        entered[0] = 1
        for row in automaton.edges:
            for _, target in row:
                entered[target] += 1
        number = len(self._rules)
        names = {
            state: f"s{number}-{state}"
            for state in range(len(automaton.edges))
            if state == 0
            or entered[state] > 1
            or state in automaton.accepting
            or len(automaton.edges[state]) > 1
        }
        for state, name in names.items():
            self._rules[name] = alt(self._options(automaton, state, names, end))
            self.states.add(name)
        self._known[automaton, end] = out = Ref(names[0])
        return out

    def _options(self, automaton: Automaton, state: int, names: dict[int, str], end: Rule) -> list[Rule]:
        options: list[Rule] = []
        for ranges, target in automaton.edges[state]:
            parts = [char_rule(ranges)]
            while target not in names:  # one way in, one way out: no rule of its own
                ((ranges, target),) = automaton.edges[target]
                parts.append(char_rule(ranges))
            closes = target in automaton.accepting and not automaton.edges[target]
            options.append(seq(*parts, end if closes else Ref(names[target])))
        if state in automaton.accepting:
            options.append(end)
        return options

    def _written_out(self, source: str, tree: Node) -> Rule:
        if (known := self._known.get(source)) is None:
            name = f"s{len(self._rules)}"
            self._rules[name] = seq(Lit('"'), self._tree(tree), Lit('"'))
            self.states.add(name)
            known = self._known[source] = Ref(name)
        return known

    def _tree(self, node: Node) -> Rule:
        match node:
            case Cat(parts):
                return seq(*(self._tree(part) for part in parts))
            case Or(options):
                return alt(self._tree(option) for option in options)
            case Loop(part, low, high):
                return Repeat(self._tree(part), low, high)
            case Set(ranges):
                return char_rule(ranges)
            case _:
                raise AssertionError("anchors are taken off before")

    def other_words(self, words: tuple[str, ...]) -> Rule:
        """A whole JSON string that is none of the words: along their tree of prefixes, and free once off it."""
        if (known := self._known.get(words)) is not None:
            return known
        tree: list[dict[str, int]] = [{}]
        ends: set[int] = set()
        for word in words:
            state = 0
            for char in word:
                if char not in tree[state]:
                    tree[state][char] = len(tree)
                    tree.append({})
                state = tree[state][char]
            ends.add(state)
        prefix = f"w{len(self._rules)}"
        for state, steps in enumerate(tree):
            options = [seq(_one_char(char), Ref(f"{prefix}-{target}")) for char, target in steps.items()]
            options.append(seq(_other_char("".join(sorted(steps))), Ref("text")))
            if state not in ends:
                options.append(Lit('"'))
            self._rules[f"{prefix}-{state}"] = Alt(tuple(options)) if len(options) > 1 else options[0]
            self.states.add(f"{prefix}-{state}")
        self._known[words] = out = seq(Lit('"'), Ref(f"{prefix}-0"))
        return out


@kept
def char_rule(ranges: Ranges) -> Rule:
    """One character of the set as it stands in a JSON string, escaped where it must be."""
    if ranges == ANY:
        return Ref("char")
    options: list[Rule] = []
    if plain := intersection(ranges, PLAIN.ranges):
        single = len(plain) == 1 and plain[0][0] == plain[0][1]
        options.append(Lit(chr(plain[0][0])) if single else Chars(plain))
    special = difference(ranges, PLAIN.ranges)
    if special == _SPECIAL:  # what json.dumps writes for characters that must be escaped
        options.append(Ref("special"))
        special = ()
    for low, high in special:
        options += [Lit(_SHORT.get(chr(point), f"\\u{point:04x}")) for point in range(low, high + 1)]
    if intersection(ranges, _NON_ASCII) == _NON_ASCII:
        options.append(Ref("far"))
    return alt(options)


@lru_cache(maxsize=4096)
def _one_char(char: str) -> Rule:
    return char_rule(((ord(char), ord(char)),))


@kept
def _other_char(known: str) -> Rule:
    """Any character that is not in the text."""
    return char_rule(complement(normalised((ord(char), ord(char)) for char in known)))
