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


SCHEMAS = {
    "book": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "nights": {"type": "integer"},
            "guests": {"type": ["array", "null"]},
            "note": {"type": ["string", "null"]},
        },
    }
}


def test_the_xml_dialect_gives_values_the_types_of_the_schema():
    text = """
<function=book>
<parameter=city>
42
</parameter>
<parameter=nights>
3
</parameter>
<parameter=guests>
["Ada", "Bo"]
</parameter>
<parameter=note>
two lines
with </tag> and "quotes"
</parameter>
</function>
"""
    assert parse_call(text, SCHEMAS) == (
        "book",
        {"city": "42", "nights": 3, "guests": ["Ada", "Bo"], "note": 'two lines\nwith </tag> and "quotes"'},
    )


def test_a_value_that_is_not_of_its_type_stays_text_for_the_validator():
    text = "<function=book><parameter=nights>three</parameter></function>"
    assert parse_call(text, SCHEMAS) == ("book", {"nights": "three"})


def test_a_call_without_parameters():
    assert parse_call("<function=ping>\n</function>") == ("ping", {})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<function=f>", "is not closed"),
        ("<function=f>\n<parameter=a>\n1\n</function>", "text outside the parameters of f"),
        ("<function=f>hello</function>", "text outside the parameters of f: 'hello'"),
    ],
)
def test_broken_xml_is_refused_with_the_reason(text, found):
    with pytest.raises(CallSyntaxError) as error:
        parse_call(text)
    assert found in str(error.value)
