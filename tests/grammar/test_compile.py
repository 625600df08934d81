# ruff: noqa: E501 - rows of a table read best on one line
"""Compiling: what is refused at the door and how it is said, what is left to the last check, and bounds on work."""

from __future__ import annotations

import json
import time

import pytest

from edge.errors import UnsupportedSchema
from edge.grammar import LateCheck, compile_schema, compile_tool
from edge.types import Tool
from tests.grammar.helpers import dumps, follows, holds, rules_hold


def tool(parameters: object, name: str = "t") -> Tool:
    return Tool(name, parameters)  # type: ignore[arg-type]


def call(name: str, arguments: object) -> str:
    return f'\n{{"name": {dumps(name)}, "arguments": {dumps(arguments)}}}\n</tool_call>'


def refusal(schema: object) -> UnsupportedSchema:
    with pytest.raises(UnsupportedSchema) as caught:
        compile_schema(schema)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value


# --- calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["get_time", "a.b-c", "two words", "größe", 'q"\\'])
def test_a_call_is_the_trained_form_with_this_tools_name(name):
    compiled = compile_tool(tool({"type": "object", "properties": {"a": {"type": "integer"}}}, name))
    assert follows(compiled, call(name, {"a": 1}))
    assert not follows(compiled, call(name + "x", {"a": 1}))
    assert not follows(compiled, call(name, {"a": "1"}))
    assert not follows(compiled, call(name, {"a": 1}).replace(": 1", ":1"))
    assert not follows(compiled, call(name, {"a": 1})[:-1])


@pytest.mark.parametrize("parameters", [True, {}, {"type": ["object", "null"]}, {"properties": {"a": True}}])
def test_arguments_are_an_object_whatever_else_the_schema_allows(parameters):
    compiled = compile_tool(tool(parameters))
    assert follows(compiled, call("t", {"a": 1}))
    assert not follows(compiled, call("t", None))
    assert not follows(compiled, call("t", [1]))


@pytest.mark.parametrize("parameters", [False, {"type": "string"}, {"enum": [1, "x"]}])
def test_a_schema_without_objects_makes_no_tool(parameters):
    with pytest.raises(UnsupportedSchema, match="nothing can satisfy"):
        compile_tool(tool(parameters))


def test_the_start_of_a_call_is_forced_up_to_the_first_choice():
    compiled = compile_tool(
        tool({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
    )
    assert compiled.matcher.start.forced() == '\n{"name": "t", "arguments": {"city": "'
    assert compiled.matcher.start.shortest() == call("t", {"city": ""})


def test_the_end_of_a_call_is_forced_when_nothing_else_is_allowed():
    schema = {
        "type": "object",
        "properties": {"b": {"type": "boolean"}},
        "required": ["b"],
        "additionalProperties": False,
    }
    place = compile_tool(tool(schema)).matcher.start.after('\n{"name": "t", "arguments": {"b": t')
    assert place is not None
    assert place.forced() == "rue}}\n</tool_call>"


# --- the order of properties ------------------------------------------------------------------------------------

SIX = {
    "type": "object",
    "properties": {name: {"type": "integer"} for name in "abcdef"},
    "required": ["c", "e"],
}


def test_few_properties_come_in_any_order_and_once():
    schema = {
        "type": "object",
        "properties": dict.fromkeys("abc", True),
        "required": ["b"],
        "additionalProperties": False,
    }
    assert holds(schema, {"c": 1, "b": 2, "a": 3})
    assert holds(schema, {"b": 2, "a": 3})
    assert not rules_hold(schema, {"c": 1, "a": 3})
    assert not follows(compile_schema(schema), '{"b": 1, "b": 2}')


def test_many_properties_come_in_schema_order_or_required_first():
    assert holds(SIX, {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6})
    assert holds(SIX, {"c": 3, "e": 5, "a": 1, "f": 6})
    assert not rules_hold(SIX, {"c": 3, "a": 1, "e": 5})


def test_a_known_property_cannot_return_as_an_unknown_one():
    compiled = compile_schema(
        {"type": "object", "properties": {"a": {"type": "integer"}, "é": {"type": "integer"}}}
    )
    assert follows(compiled, '{"a": 1, "b": "x"}')
    assert not follows(compiled, '{"a": 1, "a": "x"}')
    assert not follows(compiled, '{"a": 1, "\\u0061": "x"}')
    assert not follows(compiled, '{"\\u00e9": "x"}')


def test_arguments_can_be_held_to_the_declared_ones():
    parameters = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "free": {"type": "object"},
            "open": {"type": "object", "properties": {"x": True}, "additionalProperties": True},
        },
    }
    arguments = {"a": 1, "free": {"k": 1}, "open": {"x": 1, "y": 2}}
    anything, declared = compile_tool(tool(parameters)), compile_tool(tool(parameters), declared_only=True)
    assert follows(declared, call("t", arguments))
    assert follows(anything, call("t", arguments | {"b": 2}))
    assert not follows(declared, call("t", arguments | {"b": 2}))


# --- JSON itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ('"\\u00e9\\ud83d\\ude00"', True),
        ('"\\ud83d"', False),
        ('"\\ude00"', False),
        ('"\\ud83dx"', False),
        ('"\\ud83d\\u0041"', False),
        ('"\t"', False),
        ('"\x00"', False),
        ('"\\x41"', False),
        ('"\\/"', True),
        ('"\x7f\u2028"', True),
        ("01", False),
        ("-", False),
        ("-01", False),
        ("1.", False),
        (".5", False),
        ("+1", False),
        ("1e5", True),
        ("1E-05", True),
        ("1e999", False),
        ("1" * 18, True),
        ("1" * 400, False),
        ("NaN", False),
        ("Infinity", False),
        ("[1,2]", False),
        ("[1, 2]", True),
        ("[1, ]", False),
        ("{}", True),
        ('{"a": {}}', True),
        ("{a: 1}", False),
        (" 1", False),
        ("nul", False),
    ],
)
def test_free_values_are_json_as_python_writes_and_reads_it(text, accepted):
    assert follows(compile_schema(True), text) is accepted
    if accepted:
        json.dumps(json.loads(text)).encode()


def test_a_deeply_nested_value_is_read():
    text = "[" * 500 + "]" * 500
    assert follows(compile_schema({}), text)


# --- refused at the door ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "pointer", "keyword"),
    [
        ({"type": "strin"}, "", "type"),
        ({"properties": {"a": {"type": 5}}}, "/properties/a", "type"),
        ({"properties": [1]}, "", "properties"),
        ({"properties": {"a/b~": 3}}, "", "properties"),
        ({"items": "x"}, "", "items"),
        ({"required": "a"}, "", "required"),
        ({"required": [1]}, "", "required"),
        ({"enum": "abc"}, "", "enum"),
        ({"anyOf": []}, "", "anyOf"),
        ({"allOf": [3]}, "", "allOf"),
        ({"minLength": -1}, "", "minLength"),
        ({"minLength": "1"}, "", "minLength"),
        ({"maxItems": 1.5}, "", "maxItems"),
        ({"minimum": "0"}, "", "minimum"),
        ({"minimum": float("nan")}, "", "minimum"),
        ({"multipleOf": 0}, "", "multipleOf"),
        ({"pattern": "("}, "", "pattern"),
        ({"pattern": "a**"}, "", "pattern"),
        ({"patternProperties": {"[z-a]": True}}, "", "patternProperties"),
        ({"pattern": 5}, "", "pattern"),
        ({"$ref": "#/nowhere"}, "", "$ref"),
        ({"$ref": 5}, "", "$ref"),
        ({"$ref": "https://elsewhere.test/x.json"}, "", "$ref"),
        ({"$ref": "#"}, "", "$ref"),
        ({"anyOf": [{"$ref": "#"}]}, "", "$ref"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "/$defs/a", "$ref"),
    ],
)  # fmt: skip
def test_a_malformed_schema_is_refused_with_its_place(schema, pointer, keyword):
    error = refusal(schema)
    assert (error.pointer, error.keyword) == (pointer, keyword)
    assert error.detail


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        (False, ""),
        ({"type": "integer", "minimum": 5, "maximum": 4}, ""),
        ({"type": "string", "minLength": 3, "maxLength": 2}, ""),
        ({"type": "string", "pattern": "^ab$", "minLength": 3}, ""),
        ({"enum": [1, 2], "type": "string"}, ""),
        ({"enum": []}, ""),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, ""),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "/properties/a"),
        ({"type": "object", "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 0}}, "required": ["a"]}, "/properties/a"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, ""),
        ({"type": "object", "properties": {"a": True, "b": False}, "required": ["b"]}, "/properties/b"),
        ({"type": "object", "properties": {"a": True}, "required": ["bb"], "propertyNames": {"maxLength": 1}}, ""),
        ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, ""),
        ({"type": "array", "items": False, "minItems": 1}, ""),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}, "required": ["x"]}}}, ""),
        ({"not": {}}, ""),
        ({"type": "integer", "oneOf": [{"minimum": 1}, {"minimum": 1}]}, ""),
    ],
)  # fmt: skip
def test_a_schema_that_nothing_satisfies_is_refused_with_its_place(schema, pointer):
    error = refusal(schema)
    assert "nothing can satisfy" in error.detail
    assert error.pointer.startswith(pointer)


def test_an_optional_property_that_nothing_satisfies_is_only_never_written():
    schema = {"type": "object", "properties": {"a": {"enum": []}, "b": {"type": "integer"}}}
    assert holds(schema, {"b": 1})
    assert not rules_hold(schema, {"a": 1})


@pytest.mark.parametrize(
    "keyword",
    [
        "title",
        "description",
        "default",
        "examples",
        "$comment",
        "deprecated",
        "readOnly",
        "x-own",
        "optional",
        "id",
    ],
)
def test_annotations_say_nothing_about_values(keyword):
    assert compile_schema({"type": "integer", keyword: "anything"}).late_checks == ()


# --- left to the last check -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "late", "good", "bad"),
    [
        ({"type": "array", "uniqueItems": True}, ("uniqueItems", ""), [1, 2], [1, 1]),
        ({"type": "string", "pattern": "^(a)\\1$"}, ("pattern", ""), "aa", "ab"),
        ({"type": "string", "pattern": "\\bx\\b"}, ("pattern", ""), "a x", "ax"),
        ({"type": "string", "pattern": "a(?=b)"}, ("pattern", ""), "ab", "ac"),
        ({"type": "string", "pattern": "^(?i:a)$"}, ("pattern", ""), "A", "b"),
        ({"type": "number", "multipleOf": 0.25}, ("multipleOf", ""), 0.75, 0.3),
        ({"type": "integer", "multipleOf": 7919}, ("multipleOf", ""), 7919, 7920),
        ({"type": "object", "minProperties": 2}, ("minProperties", ""), {"a": 1, "b": 1}, {"a": 1}),
        ({"not": {"type": "array", "uniqueItems": True}}, ("uniqueItems", "/not"), [1, 1], [1, 2]),
        ({"not": {"enum": [[1]]}}, ("enum", "/not"), [2], [1]),
        ({"type": "number", "not": {"type": "integer"}}, ("not", ""), 0.5, 2),
        ({"properties": {"a": True}, "unevaluatedProperties": False}, ("unevaluatedProperties", ""), {"a": 1}, {"b": 1}),
        ({"type": "array", "contains": {"const": 1}, "allOf": [{"contains": {"const": 2}}]}, ("contains", "/allOf/0"), [1, 2], [1]),
        ({"type": "object", "patternProperties": {"(a)\\1": {"type": "integer"}}}, ("patternProperties", ""), {"aa": 1}, {"aa": "x"}),
    ],
)  # fmt: skip
def test_what_rules_cannot_say_is_listed_and_still_decided(schema, late, good, bad):
    compiled = compile_schema(schema)
    assert LateCheck(*late) in compiled.late_checks
    assert holds(schema, good)
    assert not holds(schema, bad)


def test_nullable_allows_null():
    schema = {"type": "string", "nullable": True}
    assert holds(schema, None)
    assert holds(schema, "x")
    assert not rules_hold(schema, 1)


@pytest.mark.parametrize("draft", ["http://json-schema.org/draft-04/schema#", None])
def test_a_boolean_exclusive_bound_is_draft_4s(draft):
    schema = {
        "type": "integer",
        "minimum": 3,
        "exclusiveMinimum": True,
        "maximum": 5,
        "exclusiveMaximum": False,
    }
    schema |= {"$schema": draft} if draft else {}
    assert [value for value in range(8) if holds(schema, value)] == [4, 5]
    assert [value for value in range(8) if rules_hold(schema, value)] == [4, 5]


def test_older_drafts_ignore_what_stands_beside_a_reference():
    schema = {"$ref": "#/definitions/n", "maximum": 5, "definitions": {"n": {"type": "integer"}}}
    assert not rules_hold(schema, 9)
    assert holds({**schema, "$schema": "http://json-schema.org/draft-07/schema#"}, 9)


def test_a_list_as_items_is_a_prefix_in_any_draft():
    schema = {"type": "array", "items": [{"type": "integer"}, {"type": "string"}], "additionalItems": False}
    assert holds(schema, [1, "x"])
    assert not rules_hold(schema, [1, 2])
    assert not rules_hold(schema, [1, "x", 3])


# --- memory and bounds ------------------------------------------------------------------------------------------


def test_compiling_the_same_tool_again_gives_the_same_object():
    parameters = {"type": "object", "properties": {"a": True, "b": True}}
    first = compile_tool(tool(parameters))
    assert compile_tool(tool(json.loads(json.dumps(parameters)))) is first
    assert compile_tool(tool({"type": "object", "properties": {"b": True, "a": True}})) is not first
    assert compile_tool(tool(parameters, "other")) is not first


def nested(depth: int, make) -> object:
    schema: object = {"type": "integer"}
    for _ in range(depth):
        schema = make(schema)
    return schema


HOSTILE = {
    "deep properties": nested(20_000, lambda below: {"properties": {"a": below}}),
    "deep items": nested(300, lambda below: {"items": below}),
    "deep allOf": nested(90, lambda below: {"allOf": [below]}),
    "deep not": nested(90, lambda below: {"not": below}),
    "many nodes": {"enum": [[0] for _ in range(60_000)]},
    "long chain of references": {
        "$ref": "#/$defs/0",
        "$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(2000)} | {"2000": {}},
    },
    "product of choices": {
        "allOf": [{"anyOf": [{"required": [f"{a}{b}"]} for a in range(9)]} for b in range(9)]
    },
    "oneOf of many": {"oneOf": [{"required": [f"n{n}"]} for n in range(400)]},
    "overlapping oneOf": {"oneOf": [{"properties": {f"p{n}": {"type": "integer"}}} for n in range(40)]},
    "nested counts": {"type": "string", "pattern": "^(((a{0,99}){0,99}){0,99}){0,99}$"},
    "empty group counted": {"type": "string", "pattern": "^(){999999999}(a|){99999}$"},
    "exponential automaton": {"type": "string", "pattern": "(a|b)*a(a|b){40}"},
    "exponential backtracking": {"type": "string", "pattern": "^(a+)+$"},
    "long expression": {"type": "string", "pattern": "a" * 50_000},
    "deep expression": {"type": "string", "pattern": "(" * 5000 + ")" * 5000},
    "huge lengths": {"type": "string", "minLength": 10**15, "maxLength": 10**18},
    "huge counts": {"type": "array", "minItems": 5, "maxItems": 10**15},
    "huge bounds": {"type": "number", "minimum": -1e300, "maximum": 1e300},
    "tiny bounds": {"type": "number", "exclusiveMinimum": 0, "maximum": 5e-324},
    "staircase of words": {"enum": ["a" * n for n in range(1500)]},
    "many words": {"enum": [f"word {n * 7919}" for n in range(20_000)]},
    "many properties": {"properties": {f"property_{n}": {"type": "string"} for n in range(3000)}},
    "many counted properties": {"properties": {f"p{n}": True for n in range(500)}, "minProperties": 400},
    "many dependents": {"dependentRequired": {f"a{n}": [f"b{n}"] for n in range(200)}},
    "many patterns": {"patternProperties": {f"^a{n}.*z": {"type": "integer"} for n in range(200)}},
    "long prefix": {"prefixItems": [{"const": n} for n in range(3000)]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_compiled_or_refused_in_bounded_time(name):
    start = time.process_time()
    try:
        size = len(compile_schema(HOSTILE[name]).gbnf)
    except UnsupportedSchema as exc:
        size = len(str(exc)) * 5_000
    assert size < 5_000_000
    assert time.process_time() - start < 10  # seconds; honest schemas take milliseconds


@pytest.mark.parametrize(("depth", "said"), [(150, "nested deeper than 100"), (20_000, "nested too deeply")])
def test_a_schema_nested_too_deeply_is_refused_by_name(depth, said):
    assert said in refusal(nested(depth, lambda below: {"items": below})).detail


def test_matching_stays_fast_where_backtracking_would_not_end():
    compiled = compile_schema({"type": "string", "pattern": "^(a+)+$"})
    assert compiled.validate("a" * 5000) is None
    assert compiled.validate("a" * 5000 + "b") is not None
    assert not follows(compiled, dumps("a" * 5000 + "b"))
