"""Searching a text for a `pattern`, as a check of finished values and of property names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from edge.grammar.automaton import Automaton, TooLarge, regex_automaton
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
from edge.grammar.rules import Ranges

_MAX_CHOICES = 4  # each may double the time of a backtracking search


def matches(source: str, text: str) -> bool:
    """Whether a search for the expression succeeds; an expression that nobody can read matches everything.

    The automaton comes first: it reads a character once, where `re` may take exponential time.
    """
    if (automaton := _automaton(source)) is not None:
        return automaton.accepts(text)
    compiled = _compiled(source)
    return compiled is None or compiled.search(text) is not None


def is_readable(source: str) -> bool:
    """Whether anything here can search for the expression."""
    return _automaton(source) is not None or _compiled(source) is not None


def is_linear(source: str) -> bool:
    """Whether a search takes time in proportion to the text, whatever the text."""
    return _automaton(source) is not None or _is_tame(source)


@lru_cache(maxsize=512)
def _is_tame(source: str) -> bool:
    """Whether a backtracking search has little to go back to: anchored, one wide loop, few places to choose at.

    For long counts (`^[a-z]{1,4096}$`), which make an automaton too large.
    """
    try:
        regex = parse_regex(source)
    except (RegexInvalid, RegexUnsupported):
        return False
    parts = regex.node.parts if isinstance(regex.node, Cat) else ()
    if regex.ahead or parts[:1] != (Start(),):
        return False
    nodes = list(_walk(regex.node, False))
    loops = [node for node, _ in nodes if isinstance(node, Loop) and node.low != node.high]
    n_wide = sum(loop.high is None or loop.high > 1 for loop in loops)
    n_choices = len(loops) - n_wide + sum(isinstance(node, Or) for node, _ in nodes)
    is_nested = any(in_loop and isinstance(node, Loop | Or) for node, in_loop in nodes)
    return n_wide <= 1 and n_choices <= _MAX_CHOICES and not is_nested


def _walk(node: Node, in_loop: bool) -> Iterator[tuple[Node, bool]]:
    yield node, in_loop
    match node:
        case Cat(parts) | Or(parts):
            for part in parts:
                yield from _walk(part, in_loop)
        case Loop(part):
            yield from _walk(part, True)


@kept
def _automaton(source: str) -> Automaton | None:
    try:
        return regex_automaton(parse_regex(source))
    except (TooLarge, RegexInvalid, RegexUnsupported):
        return None


@lru_cache(maxsize=512)
def _compiled(source: str) -> re.Pattern[str] | None:
    try:
        return re.compile(source)
    except (re.error, OverflowError, RecursionError):
        pass
    try:
        return re.compile(_translated(source))
    except (re.error, OverflowError, RecursionError, RegexInvalid, RegexUnsupported):
        return None


def _translated(source: str) -> str:
    """The expression in Python's spelling, for those that only ECMA-262 knows (`\\p{L}`, `\\cJ`, `[]`)."""
    regex = parse_regex(source)
    ahead = "".join(f"(?{'!' if negative else '='}{_python(node)})" for node, negative in regex.ahead)
    return (f"\\A{ahead}" if ahead else "") + _python(regex.node)


def _python(node: Node) -> str:
    match node:
        case Set(ranges):
            return _python_class(ranges)
        case Cat(parts):
            return "".join(map(_python, parts))
        case Or(options):
            return f"(?:{'|'.join(map(_python, options))})"
        case Loop(part, low, high):
            return f"(?:{_python(part)}){{{low},{'' if high is None else high}}}"
        case Start():
            return "\\A"
        case End():
            return "\\Z"


def _python_class(ranges: Ranges) -> str:
    spans = "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
    return f"[{spans}]" if ranges else "(?!)"
