"""Answers that follow a schema or a grammar instead of being free text."""

from __future__ import annotations

import json

import jsonschema
import pytest

from edge.chat.template import ChatTemplate
from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.engine.request import ChatRequest
from edge.engine.sampling import SamplingOptions
from edge.errors import EdgeError, RequestError, UnsupportedSchema
from edge.grammar import compile_schema
from edge.types import Tool
from tests.tiny_gguf import write_gguf

pytestmark = pytest.mark.model

SCHEMA = {
    "type": "object",
    "properties": {
        "tag": {"enum": ["<tool_call>", "</think>"]},
        "n": {"type": "integer", "maximum": 99, "minimum": 0},
    },
    "required": ["tag", "n"],
    "additionalProperties": False,
}


def ask(engine, text="hello", seed=1, **options):
    request = ChatRequest(
        messages=[{"role": "user", "content": text}],
        sampling=SamplingOptions(temperature=1.5, seed=seed),
        **{"max_tokens": 300, **options},
    )
    return engine.chat(request)


def of_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.mark.parametrize("seed", range(5))
def test_a_schema_s_answer_validates_and_tags_in_it_are_text(tiny_engine, seed):
    reply = ask(tiny_engine, seed=seed, response_format=of_schema(SCHEMA))
    jsonschema.validate(json.loads(reply.content), SCHEMA)
    assert reply.finish_reason == "stop"
    assert (reply.tool_calls, reply.reasoning) == ((), "")


@pytest.mark.parametrize(
    "schema", [{"type": "integer"}, {"type": "boolean"}, {"const": "ok"}, {"type": "null"}]
)
def test_any_json_value_can_be_an_answer(tiny_engine, schema):
    jsonschema.validate(json.loads(ask(tiny_engine, response_format=of_schema(schema)).content), schema)


LATE = [
    {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b", "c"]}, "minItems": 2, "maxItems": 3},
    {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 30, "not": {"multipleOf": 2}}},
     "required": ["n"], "additionalProperties": False},
    {"type": "integer", "minimum": 0, "maximum": 30, "not": {"multipleOf": 2}},
]  # fmt: skip


@pytest.mark.parametrize("schema", LATE)
@pytest.mark.parametrize("seed", range(6))
def test_what_a_grammar_cannot_say_is_held_as_the_answer_grows(tiny_engine, schema, seed):
    assert compile_schema(schema).late_checks
    reply = ask(tiny_engine, seed=seed, response_format=of_schema(schema))
    jsonschema.validate(json.loads(reply.content), schema)
    assert reply.finish_reason == "stop"
    assert {note.tool for note in reply.late_checks} == {"response_format"}


def test_an_answer_whose_rules_leave_no_way_on_stays_unfinished_and_says_so(tiny_engine):
    stuck = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 3, "maxItems": 3, "uniqueItems": True}
    reply = ask(tiny_engine, response_format=of_schema(stuck))
    assert reply.finish_reason == "length"
    assert reply.content in ("[1, 2, ", "[2, 1, ", "[1, 2,", "[2, 1,")


def test_an_answer_that_does_not_fit_is_broken_off_and_says_so(tiny_engine):
    reply = ask(tiny_engine, response_format={"type": "json_object"}, max_tokens=1)
    assert reply.finish_reason == "length"
    assert reply.content.startswith("{")


def test_a_grammar_of_one_s_own_is_followed(tiny_engine):
    reply = ask(tiny_engine, gbnf='root ::= ("ab" | "cd"){3} "."')
    assert len(reply.content) == 7
    assert {reply.content[i : i + 2] for i in (0, 2, 4)} <= {"ab", "cd"}


def test_thinking_comes_before_and_is_free(tmp_path):
    template = ChatTemplate("{{ messages[-1].content }}<think>\n", "test")
    path = write_gguf(tmp_path / "m.gguf")
    with Engine(path, chat_template=template, context=ContextOptions(n_threads=1)) as engine:
        reply = ask(engine, "</think>" * 30, response_format=of_schema({"const": 7}))
        assert reply.content in ("7", "")
        assert reply.content == "7" or reply.finish_reason == "length"


def test_text_is_the_format_without_a_grammar(tiny_engine):
    assert ask(tiny_engine, response_format={"type": "text"}, max_tokens=5).content is not None


@pytest.mark.parametrize(
    ("options", "error", "found"),
    [
        (
            {"response_format": {"type": "xml"}},
            RequestError,
            "response_format.type is 'xml'; allowed are text",
        ),
        ({"response_format": {}}, RequestError, "response_format.type is None"),
        ({"response_format": {"type": "json_schema"}}, RequestError, "json_schema.schema is missing"),
        (
            {"response_format": of_schema({"type": "string", "enum": [1]})},
            UnsupportedSchema,
            "response_format",
        ),
        ({"response_format": {"type": "json_object"}, "gbnf": 'root ::= "a"'}, RequestError, "both given"),
        ({"gbnf": "root ::= (", "max_tokens": 5}, RequestError, "cannot parse the grammar"),
        ({"gbnf": 'root ::= root "a"'}, RequestError, "cannot parse the grammar"),
        ({"gbnf": 'start ::= "a"'}, RequestError, "cannot parse the grammar"),
        ({"gbnf": "root ::= other"}, RequestError, "cannot parse the grammar"),
        ({"gbnf": " "}, RequestError, "the grammar is empty"),
        ({"gbnf": "root ::= " + "(" * 100_000}, RequestError, "brackets 100000 deep; allowed are"),
        (
            {"response_format": {"type": "json_object"}, "tools": [Tool("f", {"type": "object"})]},
            RequestError,
            "response_format and tools are both given",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_at_the_door(tiny_engine, options, error, found, capfd):
    with pytest.raises(error) as caught:
        tiny_engine.stream(ChatRequest(messages=[{"role": "user", "content": "x"}], **options))
    assert found in str(caught.value)
    assert isinstance(caught.value, EdgeError)
