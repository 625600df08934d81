"""The matcher: what may come, what must come, what ends it soonest."""

import gc

import pytest

from edge.grammar.matcher import Matcher, Position
from edge.grammar.rules import EMPTY, Grammar, Lit, Ref, Repeat, Rule, alt, chars, optional, seq

DIGIT = chars("09")


def matcher(root: Rule, **rules: Rule) -> Matcher:
    return Matcher(Grammar({**rules, "root": root}, "root"))


def verdict(reader: Matcher, text: str) -> str:
    place = reader.start.after(text)
    return "refused" if place is None else "complete" if place.is_complete else "open"


PAIRS = seq(Lit("("), optional(Ref("pairs")), Lit(")"))


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        (Lit("abc"), "", "open"),
        (Lit("abc"), "ab", "open"),
        (Lit("abc"), "abc", "complete"),
        (Lit("abc"), "abcd", "refused"),
        (EMPTY, "", "complete"),
        (EMPTY, "x", "refused"),
        (seq(Lit("a"), optional(Lit("b")), Lit("c")), "ac", "complete"),
        (seq(Lit("a"), optional(Lit("b")), Lit("c")), "abb", "refused"),
        (alt((Lit("ab"), Lit("ac"), Lit("a"))), "a", "complete"),
        (alt((Lit("ab"), Lit("ac"))), "a", "open"),
        (Repeat(DIGIT, 2, 3), "1", "open"),
        (Repeat(DIGIT, 2, 3), "12", "complete"),
        (Repeat(DIGIT, 2, 3), "1234", "refused"),
        (Repeat(DIGIT, 2, None), "1" * 50, "complete"),
        (Repeat(DIGIT, 0, 0), "1", "refused"),
        (Repeat(seq(DIGIT, Lit(",")), 3000, 3000), "7," * 3000, "complete"),
        (Repeat(seq(DIGIT, Lit(",")), 3000, 3000), "7," * 2999, "open"),
        (Ref("pairs"), "((()))", "complete"),
        (Ref("pairs"), "((())", "open"),
        (Ref("pairs"), "(()))", "refused"),
        (chars("é", (0x1F600, 0x1F64F)), "😀", "complete"),
        (chars("é", (0x1F600, 0x1F64F)), "e", "refused"),
    ],
)
def test_a_text_is_refused_open_or_complete(rule, text, expected):
    assert verdict(matcher(rule, pairs=PAIRS), text) == expected


@pytest.mark.parametrize(
    ("rule", "behind", "expected"),
    [
        (Lit("abc"), "a", "bc"),
        (alt((Lit("left"), Lit("lean"))), "", "le"),
        (seq(Lit("x"), optional(Lit("y"))), "", "x"),
        (seq(Lit("x"), optional(Lit("y"))), "x", ""),
        (seq(DIGIT, Lit("!")), "", ""),
        (seq(DIGIT, Lit("!")), "4", "!"),
        (Repeat(Lit("ab"), 2, 3), "", "abab"),
    ],
)
def test_forced_text_is_what_every_continuation_starts_with(rule, behind, expected):
    place = matcher(rule).start.after(behind)
    assert place is not None
    assert place.forced() == expected


@pytest.mark.parametrize(
    ("rule", "behind", "expected"),
    [
        (Repeat(Lit("ab"), 2, None), "a", "bab"),
        (alt((seq(DIGIT, Lit("-long")), seq(Lit("5"), Lit("!")))), "5", "!"),
        (Ref("pairs"), "((", "))"),
        (seq(Lit('"'), Repeat(chars("!~"), 3, 9), Lit('"')), "", '"aaa"'),
        (Lit("done"), "done", ""),
    ],
)
def test_the_shortest_completion_completes_with_the_fewest_characters(rule, behind, expected):
    place = matcher(rule, pairs=PAIRS).start.after(behind)
    assert place is not None
    assert place.shortest() == expected
    assert place.shortest_length() == len(expected)
    assert place.after(expected).is_complete


def test_positions_are_values_that_can_be_tried_again():
    start = matcher(alt((Lit("ab"), Lit("ac")))).start
    first = start.after("a")
    assert first.allows("b")
    assert not first.allows("x")
    assert first.allows("c")


def n_held(reader: Matcher) -> int:
    """Positions of a reader that are alive, and the steps that they remember."""
    gc.collect()
    places = (thing for thing in gc.get_objects() if isinstance(thing, Position))
    return sum(1 + len(place._next) for place in places if place._matcher is reader)


def test_memory_is_bounded_on_long_counted_texts(monkeypatch):
    monkeypatch.setattr("edge.grammar.matcher.MAX_REMEMBERED", 100)
    reader = matcher(Repeat(seq(DIGIT, Lit(",")), 0, 1_000_000))
    assert reader.start.after("1," * 2000).is_complete
    assert len(reader._positions) + len(reader._stacks) < 300
    assert n_held(reader) < 300


def test_memory_is_bounded_on_texts_of_ever_new_characters(monkeypatch):
    monkeypatch.setattr("edge.grammar.matcher.MAX_REMEMBERED", 100)
    reader = matcher(Repeat(chars("\u0100\uffff"), 0, None))
    for first in range(0x100, 0x1100, 8):
        assert reader.start.after("".join(map(chr, range(first, first + 8)))).is_complete
    assert n_held(reader) < 300


def test_a_place_goes_on_after_its_reader_has_forgotten_the_way_there(monkeypatch):
    monkeypatch.setattr("edge.grammar.matcher.MAX_REMEMBERED", 100)
    reader = matcher(seq(Lit("<"), Repeat(chars("\u0100\uffff"), 0, None), Lit(">")))
    place = reader.start.after("<\u0100")
    assert reader.start.after("<" + "".join(map(chr, range(0x200, 0x400)))) is not None
    assert place.after("\u0101>").is_complete
    assert place.after("x") is None


def test_a_long_unbounded_text_comes_back_to_known_positions():
    start = matcher(seq(Lit('"'), Repeat(chars("az"), 2, None), Lit('"'))).start
    assert start.after('"' + "x" * 10) is start.after('"' + "x" * 5000)
