"""Faults that are seen while a value is being written: soon enough to go on differently, and never too soon."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.grammar import compile_schema, compile_tool
from edge.grammar.early import partial_value
from edge.types import Tool
from tests.grammar.helpers import dumps

UNIQUE = {"type": "array", "uniqueItems": True}
DOUBLED = {"type": "string", "pattern": "^(a+)\\1$"}


@pytest.mark.parametrize(
    ("text", "value", "open_paths"),
    [
        ("", None, []),
        ("1", None, []),
        ('"a', None, []),
        ('"a"', "a", []),
        ("tru", None, []),
        ("true", True, []),
        ("[", [], [()]),
        ("[1", [], [()]),
        ("[1,", [1], [()]),
        ("[1, ", [1], [()]),
        ("[1, 2]", [1, 2], []),
        ('["a\\"', [], [()]),
        ('["a\\""', ['a"'], [()]),
        ("[[1], [2, ", [[1], [2]], [(), (1,)]),
        ('{"a', {}, [()]),
        ('{"a"', {}, [()]),
        ('{"a": ', {}, [()]),
        ('{"a": [', {"a": []}, [(), ("a",)]),
        ('{"a": [1, {"b": "x", "c', {"a": [1, {"b": "x"}]}, [(), ("a",), ("a", 1)]),
        ('{"a": {"b": null}, "c": -1.5e3}', {"a": {"b": None}, "c": -1500.0}, []),
        ('{"a": "x", "b"', {"a": "x"}, [()]),
        ('{"a, b": "x: y", "c": ["{"', {"a, b": "x: y", "c": ["{"]}, [(), ("c",)]),
    ],
)
def test_the_finished_parts_of_a_text_make_a_value(text, value, open_paths):
    found = partial_value(text)
    assert (found.value, found.open_paths) == (value, open_paths)


@pytest.mark.parametrize(
    ("schema", "text", "at"),
    [
        (UNIQUE, '["a", "b", "a", 1]', '["a", "b", "a"'),  # not at its comma: then no way would be left
        (UNIQUE, "[1, 12, 1, 3]", "[1, 12, 1,"),  # the number might have gone on
        (UNIQUE, "[[1], [1]]", "[[1], [1]"),
        ({"properties": {"t": UNIQUE}}, '{"x": 1, "t": [true, true]}', '{"x": 1, "t": [true, true'),
        (DOUBLED, '"aaa"', '"aaa"'),
        ({"items": DOUBLED}, '["aa", "ab"]', '["aa", "ab"'),
        ({"items": {"type": "number", "multipleOf": 0.5}}, "[0.5, 0.75, 1]", "[0.5, 0.75,"),
    ],
)
def test_a_fault_is_seen_at_the_first_character_that_settles_it(schema, text, at):
    compiled = compile_schema(schema)
    assert compiled.late_checks
    faulty = [text[:n] for n in range(len(text) + 1) if compiled.early_fault(text[:n])]
    assert faulty[0] == at


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"minItems": 2, **UNIQUE}, "[1"),
        ({"required": ["b"], "properties": {"t": UNIQUE}}, '{"t": [1'),
        ({"if": {"required": ["k"]}, "then": {}, "else": {"properties": {"t": UNIQUE}}}, '{"t": [1, 1, '),
        ({"anyOf": [{"items": DOUBLED}, {"minItems": 3}]}, '["ab"'),
    ],
)
def test_what_may_still_be_mended_is_no_fault(schema, text):
    assert compile_schema(schema).early_fault(text) is None


def test_a_call_is_looked_at_behind_its_opening():
    compiled = compile_tool(Tool('a"b', {"type": "object", "properties": {"t": UNIQUE}}))
    opening = '\n{"name": "a\\"b", "arguments": '
    assert compiled.early_fault(opening[:9]) is None
    assert compiled.early_fault(opening + '{"t": [1, 2, ') is None
    assert compiled.early_fault(opening + '{"t": [1, 1, ') is not None
    assert compiled.early_fault(opening + '{"t": [1, 1]}}\n</tool_call>') is not None


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.floats(-9, 9), st.text(max_size=3)),
    lambda below: st.one_of(
        st.lists(below, max_size=3), st.dictionaries(st.text(max_size=2), below, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(value=JSON, seed=st.integers(0, 999))
def test_any_value_is_read_whole_and_any_start_of_it_is_read(value, seed):
    text = dumps([value])
    assert partial_value(text).value == json.loads(text)
    cut = random.Random(seed).randrange(len(text))
    assert len(partial_value(text[:cut]).open_paths) >= (cut > 0)
