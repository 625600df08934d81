"""Searching a text for a `pattern`, as a check of finished values and of property names."""

from __future__ import annotations

import re
from functools import lru_cache

from edge.grammar.automaton import Automaton, TooLarge, regex_automaton
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
    """Whether a search reads each character once, whatever the expression and the text."""
    return _automaton(source) is not None


@lru_cache(maxsize=512)
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
