"""Reading catalogues: every form that is allowed, and what is said about the others."""

from __future__ import annotations

import json

import pytest

from edge.errors import RetrievalError
from edge.tools.retrieval.catalogue import CatalogueTool, parse_catalogue, read_catalogue, tool_of_row
from edge.types import Tool
from tests.tools.retrieval.conftest import entry

PING = {"name": "ping", "description": "Is it there?", "parameters": {"type": "object"}}
OPENAI = {"type": "function", "function": PING}


def parse(text: str) -> list[CatalogueTool]:
    return parse_catalogue(text.encode(), "c.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([OPENAI]),
        json.dumps([PING], indent=2),
        json.dumps(OPENAI) + "\n",
        json.dumps({"tools": [OPENAI]}, indent=1),
        json.dumps({"id": "ping", "tool": OPENAI}),
        "\ufeff\n" + json.dumps(OPENAI) + "\r\n\r\n",
    ],
)
def test_a_catalogue_comes_in_several_forms(text):
    (found,) = parse(text)
    assert (found.id, found.tool) == ("ping", Tool("ping", {"type": "object"}, "Is it there?"))


def test_a_row_says_where_its_tool_comes_from_and_may_have_an_id_of_its_own():
    row = {"id": "net/ping", "tool": OPENAI, "server": "net", "server_description": "Network tools"}
    (found,) = parse(json.dumps(row))
    assert (found.id, found.tool.name, found.group, found.group_description) == (
        "net/ping",
        "ping",
        "net",
        "Network tools",
    )


def test_a_row_of_an_api_list_becomes_a_tool_as_stabletoolbench_names_it():
    api = {
        "category_name": "Sports", "tool_name": "Live Scores!", "api_name": "2 Get Match", "api_description": "d" * 300,
        "required_parameters": [{"name": "Match ID", "type": "NUMBER", "description": "which"}],
        "optional_parameters": [{"name": "lang", "type": "ENUM"}, {"name": "all", "type": "BOOLEAN"}],
    }  # fmt: skip
    (found,) = parse(json.dumps(api))
    assert found.tool.name == "get_2_get_match_for_live_scores"
    assert len(found.tool.description) == 256
    assert found.group == "Sports"
    assert found.tool.parameters == {
        "type": "object",
        "properties": {
            "match_id": {"type": "integer", "description": "which"},
            "lang": {"type": "string"},
            "all": {"type": "boolean"},
        },
        "required": ["match_id"],
    }


def test_an_api_s_name_keeps_its_last_64_characters():
    (found,) = parse(json.dumps({"api_name": "a" * 80, "tool_name": "b"}))
    assert found.tool.name == "a" * 58 + "_for_b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("[]", "is empty"),
        ("{\n", "line 1 is not JSON"),
        (json.dumps(OPENAI) + "\n{]\n", "line 2 is not JSON"),
        ("[1]", "entry 1 is a number"),
        ('"text"', "line 1 is a string"),
        (f"{json.dumps(PING)}\n\n{json.dumps(PING)}", "line 3: the id 'ping' was used before (the catalogue c"),
        (json.dumps({"id": 7, "tool": OPENAI}), "id is a number"),
        (json.dumps({"id": "x", "tool": {"function": {}}}), "line 1: the tool has no name"),
        (json.dumps({"api_name": "x", "required_parameters": {}}), "its parameters are no list"),
        (json.dumps({"api_name": "x", "optional_parameters": [{}]}), "a parameter has no name"),
        ("[" * 100_000, "is not JSON"),
    ],
)  # fmt: skip
def test_a_bad_catalogue_is_one_line_that_says_where(text, message):
    with pytest.raises(RetrievalError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(RetrievalError, match="cannot be read"):
        read_catalogue(tmp_path / "none.jsonl")
    (tmp_path / "latin").write_bytes(b'{"name": "caf\xe9"}')
    with pytest.raises(RetrievalError, match="not UTF-8"):
        read_catalogue(tmp_path / "latin")


def test_a_row_that_is_written_reads_back_and_its_digest_shows_every_change():
    tool = entry("a", "b", "server", n={"type": "integer"})
    assert tool_of_row(json.loads(json.dumps(tool.to_row())), "here") == tool
    others = [
        entry("a", "c", "server"),
        entry("a", "b", "server", n={"type": "number"}),
        entry("a", "b", "other"),
    ]
    assert len({each.digest() for each in [tool, *others]}) == 4
