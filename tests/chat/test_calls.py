from __future__ import annotations

import pytest

from edge.chat.calls import CallSyntaxError, parse_call


def test_a_call_is_a_name_and_arguments():
    assert parse_call('\n{"name": "f", "arguments": {"a": [1, null, "é"]}}\n') == ("f", {"a": [1, None, "é"]})


def test_of_a_key_given_twice_the_last_value_counts():
    assert parse_call('{"name": "f", "arguments": {"a": 1, "a": 2}}') == ("f", {"a": 2})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "not JSON"),
        ("get_weather(city='Paris')", "not JSON"),
        ('{"name": "f", "arguments": {}', "not JSON"),
        ('{"name": "f", "arguments": {"a": NaN}}', "NaN is not JSON"),
        ('{"name": "f", "arguments": {"a": -Infinity}}', "-Infinity is not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "a JSON list, an object is needed"),
        ('{"arguments": {}}', "no name"),
        ('{"name": 3, "arguments": {}}', "no name"),
        ('{"name": "f"}', "arguments of f are not an object"),
        ('{"name": "f", "arguments": "{}"}', "arguments of f are not an object"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text, found):
    with pytest.raises(CallSyntaxError) as error:
        parse_call(text)
    assert found in str(error.value)
