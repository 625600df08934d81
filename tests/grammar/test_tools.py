"""Reading a list of tools: what is taken, and the one line that says why something is not."""

import json
from pathlib import Path

import pytest

from edge.errors import ToolsError
from edge.grammar import parse_tools, read_tools

GOOD = {"name": "get_time", "description": "The time.", "parameters": {"type": "object"}}


def test_both_forms_of_a_tool_read_alike():
    wrapped, bare = parse_tools([{"type": "function", "function": GOOD}]), parse_tools([GOOD])
    assert wrapped == bare
    assert (bare[0].name, bare[0].description, bare[0].parameters) == (
        "get_time",
        "The time.",
        {"type": "object"},
    )


def test_a_tool_without_parameters_takes_no_arguments():
    assert parse_tools([{"name": "ping"}])[0].parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize("name", ["a.b", "a-b", "two words", "größe", "名前", 'quo"te', "back\\slash", "0"])
def test_names_are_free_but_for_control_characters(name):
    assert parse_tools([{"name": name}])[0].name == name


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path):
    for coding in ("utf-8", "utf-8-sig"):
        (tmp_path / "t.json").write_text(json.dumps([GOOD]), encoding=coding)
        assert read_tools(tmp_path / "t.json") == parse_tools([GOOD])


def test_what_is_far_too_large_for_tools_is_not_read_into_memory():
    with pytest.raises(ToolsError, match=r"^the tools file /dev/zero: it is larger than 64 MiB"):
        read_tools(Path("/dev/zero"))


def test_an_empty_list_is_no_tools():
    assert parse_tools([]) == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"name": "x"}, "tools must be a JSON list, not an object"),
        ("[]", "not a string"),
        (None, "not null"),
        (3, "not a number"),
        ([GOOD, 7], "tools[1] is a number"),
        ([["x"]], "tools[0] is a list"),
        ([{}], "tools[0] has no 'function' and no 'name'"),
        ([{"type": "retrieval", "function": GOOD}], "tools[0].type is 'retrieval'"),
        ([{"type": "function", "function": "f"}], "tools[0].function is a string"),
        ([{"function": {}}], "tools[0] has no name"),
        ([{"name": 5}], "tools[0].name is a number"),
        ([{"name": " "}], "tools[0].name is ' '"),
        ([{"name": "a\nb"}], "holds U+000A"),
        ([{"name": "a\ud800"}], "holds U+D800"),
        ([{"name": "x", "parameters": [1]}], "tools[0].parameters is a list"),
        ([{"name": "x", "parameters": "{}"}], "tools[0].parameters is a string"),
        ([{"name": "x", "description": {}}], "tools[0].description is an object"),
        ([GOOD, GOOD], "tools[1] is called 'get_time' like tools[0]"),
    ],
)
def test_what_is_no_tool_is_refused_in_one_line(value, said):
    with pytest.raises(ToolsError) as caught:
        parse_tools(value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
