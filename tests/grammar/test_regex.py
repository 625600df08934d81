"""Regular expressions as automata, against Python's `re` where both read an expression alike."""

from __future__ import annotations

import random
import re

import pytest

from edge.grammar.automaton import negation, regex_automaton
from edge.grammar.regex import RegexInvalid, RegexUnsupported, parse_regex

SHARED = [
    "abc", "^a|b$", "(a|b)*c", "^$", "", "a$", "^", "x(^a)?", "(a*)*b", "^(a?){3}$", "[^a-c]$", "^(ab|a)(c|bcd)$",
    "^a{2,}b?$", "^[a-z]{1,3}$", "^(?!foo)[a-z]+$", "^(?=.*1)[a-d01]{2,5}$", "^(?!a$)(?!b$)", "a.c", "^[a\\-c]+$",
    "^(?:a|b|c){2}$", "a{1", "\\x61+", "\\u0062", "^a??b*?$", "(?:)", "^(?:^a$)$", "a|", "[a-c-]", "^\\.\\*$",
]  # fmt: skip


@pytest.mark.parametrize("source", SHARED)
def test_an_automaton_accepts_what_a_search_finds(source):
    automaton = regex_automaton(parse_regex(source))
    opposite = negation(automaton)
    python = re.compile(source.replace("$", "\\Z"))
    choose = random.Random(source)
    for _ in range(400):
        text = "".join(choose.choices("abcdfo01-.*{", k=choose.randint(0, 6)))
        expected = python.search(text) is not None
        assert automaton.accepts(text) is expected, text
        assert opposite.accepts(text) is not expected, text


@pytest.mark.parametrize(
    ("source", "accepted", "refused"),
    [
        ("^\\d$", "7", "٣"),
        ("^\\D$", "x", "٣"),  # a digit for Python: neither reading may be broken
        ("^[^\\w]$", "-", "é"),
        ("^\\s$", "\ufeff", "x"),
        ("^.$", "é", "\u2028"),
        ("^a$", "a", "a\n"),
        ("^[]$|b", "b", "a"),
        ("^[^]$", "\n", ""),
        ("^a{,2}$", "a{,2}", "aa"),
        ("^\\cJ$", "\n", "J"),
        ("^\\/$", "/", "\\/"),
        ("^\\p{Lu}\\p{L}$", "Éa", "éa"),
        ("^\\P{L}$", "1", "x"),
        ("^[\\u00e0-\\u00ff]$", "é", "e"),
        ("^\\ud83d\\ude00$", "😀", "x"),
        ("^(?<year>\\d{4})$", "2024", "24"),
    ],
)
def test_what_only_ecma_262_says_is_read_as_it_says(source, accepted, refused):
    automaton = regex_automaton(parse_regex(source))
    assert automaton.accepts(accepted)
    assert not automaton.accepts(refused)


@pytest.mark.parametrize(
    "source", ["(", ")", "a)", "[a", "*a", "a**", "[z-a]", "\\", "\\x1", "a{3,2}", "(?<n", "\\p{L"]
)
def test_what_is_no_expression_is_refused(source):
    with pytest.raises(RegexInvalid):
        parse_regex(source)


@pytest.mark.parametrize(
    "source",
    [
        "(a)\\1",
        "\\ba",
        "(?<=a)b",
        "(?<!a)b",
        "a(?=b)",
        "(^(?=a)|b)",
        "^(?=a)b|c",
        "\\p{Script=Greek}",
        "(?i)a",
        "^*",
    ],
)
def test_what_no_automaton_here_says_is_called_unsupported(source):
    with pytest.raises(RegexUnsupported):
        parse_regex(source)
