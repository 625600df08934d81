"""Two readers, one language: llama.cpp reading the GBNF, and the matcher reading the rules."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.grammar import compile_schema, compile_tool, tool_name_gbnf, tool_name_matcher
from edge.grammar.gbnf import to_gbnf
from edge.grammar.matcher import Matcher, Position
from edge.grammar.rules import Grammar, Lit, Ref, Repeat, alt, chars, seq
from edge.grammar.validate import Check
from edge.types import Tool
from tests.grammar.helpers import compiled_or_none, dumps
from tests.grammar.test_keywords import FORMATS, TABLE

pytestmark = pytest.mark.model
QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def agree(reader, gbnf: str, matcher: Matcher, text: str) -> None:
    """Both accept the same prefix of the text, and agree whether it may end there."""
    place, n_chars = matcher.start, 0
    for char in text:
        following = place.after(char)
        if following is None:
            break
        place, n_chars = following, n_chars + 1
    n_bytes, complete = reader.accepted_prefix(gbnf, text)
    least, most = len(text[:n_chars].encode()), len(text[: n_chars + 1].encode())
    # llama.cpp reads bytes: of a character that is refused it may take the first ones.
    assert least <= n_bytes, (text, text[:n_chars], n_bytes)
    assert n_bytes < most or n_chars == len(text), (text, text[:n_chars], n_bytes)
    if n_bytes == least:
        assert complete == place.is_complete, text[:n_chars]


def walk(matcher: Matcher, choose: random.Random, steps: int) -> str:
    """A random text of the rules: random steps, then the shortest way to the end."""
    place: Position = matcher.start
    text = []
    for _ in range(steps):
        if place.is_complete and (not place.next_ranges() or choose.random() < 0.3):
            break
        low, high = choose.choice(place.next_ranges())
        char = chr(min(high, low + choose.choice((0, 0, 1, 5, 60, 1000, high - low))))
        if 0xD800 <= ord(char) < 0xE000:
            char = chr(low)
        text.append(char)
        following = place.after(char)
        assert following is not None
        place = following
    return "".join(text) + place.shortest()


def mutated(text: str, choose: random.Random) -> str:
    """The text with a character dropped, doubled, replaced or swapped."""
    at = choose.randrange(len(text)) if text else 0
    other = choose.choice('"\\{}[],: 0159-.eatrué\n😀')
    return choose.choice(
        (
            text[:at] + text[at + 1 :],
            text[:at] + text[at : at + 1] + text[at:],
            text[:at] + other + text[at + 1 :],
            text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :],
            text + other,
        )
    )


@pytest.mark.parametrize("name", TABLE)
def test_both_read_the_tables_alike(gbnf_reader, name):
    schema, good, bad = TABLE[name]
    compiled = compile_schema(schema)
    choose = random.Random(name)
    texts = [text for value in (*good, *bad) if len(text := dumps(value)) < 2000]
    texts += [walk(compiled.matcher, choose, 30) for _ in range(3)]
    for text in texts + [mutated(text, choose) for text in texts]:
        agree(gbnf_reader, compiled.gbnf, compiled.matcher, text)


@pytest.mark.parametrize("name", FORMATS)
def test_both_read_formats_alike(gbnf_reader, name):
    compiled = compile_schema({"type": "string", "format": name})
    choose = random.Random(name)
    texts = [walk(compiled.matcher, choose, 40) for _ in range(6)]
    for text in texts + [mutated(text, choose) for text in texts]:
        agree(gbnf_reader, compiled.gbnf, compiled.matcher, text)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 128, 1000, 2001, 4097])
@pytest.mark.parametrize("low", [0, 3, 70])
def test_large_counts_are_exact_in_llama_cpp(gbnf_reader, count, low):
    if low > count:
        pytest.skip("no such bounds")
    grammar = Grammar({"root": seq(Repeat(chars("ab"), low, count), Lit("!"))}, "root")
    gbnf = to_gbnf(grammar)
    for n in {low - 1, low, low + 1, count - 1, count, count + 1} - {-1}:
        assert gbnf_reader.accepts(gbnf, "a" * n + "!") is (low <= n <= count), n


def test_a_repeated_sequence_is_counted_as_a_whole(gbnf_reader):
    grammar = Grammar(
        {"root": Repeat(seq(alt((Lit("ab"), Ref("x"))), Lit(",")), 500, 700), "x": chars("xz")}, "root"
    )
    gbnf = to_gbnf(grammar)
    assert gbnf_reader.accepts(gbnf, "ab,z," * 300)
    assert not gbnf_reader.accepts(gbnf, "ab,z," * 351)
    assert not gbnf_reader.accepts(gbnf, "ab,z," * 249)


@pytest.mark.parametrize("char", list('"\\]^-[\n\t\x00\x7f\x85é\uffff😀\U0010ffff'))
def test_every_character_can_be_written_in_gbnf(gbnf_reader, char):
    literal = to_gbnf(Grammar({"root": Lit(f"<{char}>")}, "root"))
    char_class = to_gbnf(Grammar({"root": seq(Lit("<"), chars((ord(char), ord(char))), Lit(">"))}, "root"))
    if char == "\x00":  # no tokenizer gives this byte; it must only not break the grammar
        assert gbnf_reader.compiles(char_class)
        return
    for gbnf in (literal, char_class):
        assert gbnf_reader.accepts(gbnf, f"<{char}>")
        assert not gbnf_reader.accepts(gbnf, "<?>")


def test_a_call_is_read_alike_with_an_odd_name(gbnf_reader):
    tool = Tool(
        'wéird "name"\\x', {"type": "object", "properties": {"ä": {"type": "integer"}}, "required": ["ä"]}
    )
    compiled = compile_tool(tool)
    text = f'\n{{"name": {dumps(tool.name)}, "arguments": {{"ä": 3}}}}\n</tool_call>'
    for other in (text, text[:-1], text.replace("3", '"3"'), text + " ", text.replace("ä", "a")):
        agree(gbnf_reader, compiled.gbnf, compiled.matcher, other)
    assert gbnf_reader.accepts(compiled.gbnf, text)


def test_a_thousand_names_are_told_apart(gbnf_reader):
    names = [f"tool_{number}" for number in range(1000)] + ["tool", 'a"b', "é"]
    gbnf, matcher = tool_name_gbnf(names), tool_name_matcher(names)
    assert matcher.start.forced() == '\n{"name": "'
    assert tool_name_matcher(["get_time", "get_news"]).start.forced() == '\n{"name": "get_'
    for name in ("tool", "tool_7", "tool_999", 'a"b', "é"):
        text = f'\n{{"name": {dumps(name)}, "anything'
        assert gbnf_reader.accepts(gbnf, text)
        agree(gbnf_reader, gbnf, matcher, text)
    for name in ("tool_1000", "toolx", "", "e"):
        assert not gbnf_reader.accepts(gbnf, f'\n{{"name": {dumps(name)}')


# --- schemas made up by hypothesis ------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "ab", "b", "é", "x_1", "$ref", 'q"'])
COUNTS = st.integers(0, 4)
NUMBERS = st.one_of(st.integers(-30, 30), st.sampled_from([0.5, -2.25, 10.125, 100]))
PATTERNS = st.sampled_from(["^a", "b$", "^[a-c]{1,3}$", "a|é", "^(ab|c)*$", "[^a]", "\\d", "^$", "^\\S+$"])
VALUES = st.sampled_from([None, True, False, 0, 1, -3, 2.5, "", "a", "ab", "é", [], [1], {}, {"a": 1}])


def _optional(**fields):
    return st.fixed_dictionaries({}, optional=fields)


def _typed(name, fields):
    return st.builds(lambda rest: {"type": name, **rest}, fields)


def _objects(below):
    return _typed(
        "object",
        _optional(
            properties=st.dictionaries(NAMES, below, max_size=3),
            required=st.lists(NAMES, max_size=2, unique=True),
            additionalProperties=below,
            patternProperties=st.dictionaries(PATTERNS, below, max_size=2),
            propertyNames=st.builds(lambda pattern: {"pattern": pattern}, PATTERNS),
            minProperties=COUNTS,
            maxProperties=COUNTS,
            dependentRequired=st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=1),
            dependentSchemas=st.dictionaries(NAMES, below, max_size=1),
        ),
    )


def _arrays(below):
    return _typed(
        "array",
        _optional(
            items=below,
            prefixItems=st.lists(below, min_size=1, max_size=2),
            minItems=COUNTS,
            maxItems=COUNTS,
            contains=below,
            minContains=COUNTS,
            maxContains=COUNTS,
        ),
    )


_BOUNDS = {"minimum": NUMBERS, "maximum": NUMBERS, "exclusiveMinimum": NUMBERS, "exclusiveMaximum": NUMBERS}
LEAVES = st.one_of(
    st.booleans(),
    _typed(
        "string",
        _optional(
            minLength=COUNTS, maxLength=COUNTS, pattern=PATTERNS, format=st.sampled_from(sorted(FORMATS))
        ),
    ),
    _typed("integer", _optional(**_BOUNDS, multipleOf=st.integers(1, 12))),
    _typed("number", _optional(**_BOUNDS)),
    st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=4)),
    st.builds(lambda value: {"const": value}, VALUES),
    st.sampled_from([{"type": "null"}, {"type": ["boolean", "string"]}]),
)


def _combined(below):
    several = st.lists(below, min_size=1, max_size=3)
    keywords = st.sampled_from(["anyOf", "oneOf", "allOf"])
    return st.one_of(
        st.builds(lambda keyword, options: {keyword: options}, keywords, several),
        st.builds(lambda other, negated: {"allOf": [other], "not": negated}, below, below),
        st.builds(lambda a, b, c: {"if": a, "then": b, "else": c}, below, below, below),
    )


SCHEMAS = st.recursive(
    LEAVES, lambda below: st.one_of(_objects(below), _arrays(below), _combined(below)), max_leaves=6
)


@QUICK
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_both_read_any_schema_alike(gbnf_reader, schema, seed):
    compiled = compiled_or_none(schema)
    if compiled is None:
        return
    choose = random.Random(seed)
    texts = [walk(compiled.matcher, choose, 25) for _ in range(3)]
    for text in texts + [mutated(text, choose) for text in texts]:
        agree(gbnf_reader, compiled.gbnf, compiled.matcher, text)


@settings(QUICK, max_examples=150)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_every_text_of_the_rules_satisfies_the_schema(schema, seed):
    compiled = compiled_or_none(schema)
    if compiled is None:
        return
    choose = random.Random(seed)
    for _ in range(4):
        text = walk(compiled.matcher, choose, 25)
        fault = compiled.validate(json.loads(text))
        assert fault is None or compiled.late_checks, (schema, text, fault)


@settings(QUICK, max_examples=150)
@given(
    schema=SCHEMAS,
    value=st.one_of(VALUES, st.lists(VALUES, max_size=3), st.dictionaries(NAMES, VALUES, max_size=1)),
)
def test_no_value_that_satisfies_the_schema_is_refused(schema, value):
    compiled = compiled_or_none(schema)
    satisfied = Check(schema).fault(value) is None
    if compiled is None:
        assert not satisfied, (schema, value)
        return
    place = compiled.matcher.start.after(dumps(value))
    assert satisfied <= (place is not None and place.is_complete), (schema, value)
