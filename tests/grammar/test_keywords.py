# ruff: noqa: E501 - rows of a table read best on one line
"""Each keyword as a table: values that the rules accept and values that the rules alone refuse.

`jsonschema` judges every row as well, so a row cannot be wrong about the keyword itself.
"""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from edge.grammar import compile_schema
from tests.grammar.helpers import rules_hold

# (schema, accepted, refused)
TABLE: dict[str, tuple[object, list[object], list[object]]] = {
    "true": (True, [1, "x", None, [], {}, {"a": [1, {"b": None}]}], []),
    "type string": ({"type": "string"}, ["", "é", 'q"\\\n', "😀"], [1, None, [], {}]),
    "type integer": ({"type": "integer"}, [0, -7, 10**17], [0.5, "1", True, None]),
    "type number": ({"type": "number"}, [0, -0.5, 1e22, 1e-7, 12345678901234567], ["1", True]),
    "type boolean": ({"type": "boolean"}, [True, False], [0, "true", None]),
    "type null": ({"type": "null"}, [None], [0, "", False]),
    "type list": ({"type": ["string", "null"]}, ["x", None], [1, True, []]),
    "type integer or string": ({"type": ["integer", "string"]}, [1, "x"], [0.5, None]),
    "required": (
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": True}, "required": ["b"]},
        [{"b": 1}, {"a": 1, "b": None}, {"b": 1, "c": 2}],
        [{}, {"a": 1}, {"a": "x", "b": 1}],
    ),
    "required but not declared": (
        {"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}},
        [{"x": 1}, {"x": 1, "y": 2}],
        [{}, {"y": 1}, {"x": "s"}],
    ),
    "additionalProperties false": (
        {"type": "object", "properties": {"a": True}, "additionalProperties": False},
        [{}, {"a": 1}],
        [{"b": 1}, {"a": 1, "b": 2}, {"aa": 1}],
    ),
    "additionalProperties schema": (
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
        [{"a": "x", "b": 1}, {"ab": 2}, {"": 3}],
        [{"a": 1}, {"b": "x"}],
    ),
    "patternProperties": (
        {
            "type": "object",
            "properties": {"n_a": True},
            "patternProperties": {"^n_": {"type": "integer"}, "_s$": {"type": "string"}},
            "additionalProperties": False,
        },
        [{}, {"n_x": 1}, {"x_s": "v"}, {"n_a": 1, "n_b": 2}],
        [{"n_x": "v"}, {"x": 1}, {"n_s_s": 1}, {"n_s_s": "v"}, {"n_a": "x"}],
    ),
    "propertyNames": (
        {"type": "object", "propertyNames": {"pattern": "^[a-z]+$", "maxLength": 3}},
        [{}, {"abc": 1, "d": 2}],
        [{"A": 1}, {"abcd": 1}, {"": 1}],
    ),
    "propertyNames enum": ({"type": "object", "propertyNames": {"enum": ["x", "y"]}}, [{"x": 1}, {"y": 1}], [{"z": 1}]),
    "propertyNames forbids a property": (
        {"type": "object", "properties": {"a": True, "bb": True}, "propertyNames": {"maxLength": 1}},
        [{"a": 1}, {}],
        [{"bb": 1}, {"a": 1, "bb": 2}],
    ),
    "minProperties": (
        {"type": "object", "properties": {"a": True, "b": True, "c": True}, "minProperties": 2, "additionalProperties": False},
        [{"a": 1, "b": 1}, {"b": 1, "c": 1}, {"a": 1, "b": 1, "c": 1}],
        [{}, {"a": 1}, {"c": 1}],
    ),
    "maxProperties": (
        {"type": "object", "properties": {"a": True, "b": True}, "maxProperties": 2},
        [{}, {"a": 1, "b": 1}, {"b": 1, "z": 1}],
        [{"a": 1, "b": 1, "z": 1}],
    ),
    "maxProperties 0": ({"type": "object", "maxProperties": 0}, [{}], [{"a": 1}]),
    "items": ({"type": "array", "items": {"type": "integer"}}, [[], [1], [1, 2, 3]], [["x"], [1, None]]),
    "minItems and maxItems": ({"type": "array", "minItems": 2, "maxItems": 3}, [[1, 2], [1, 2, 3]], [[], [1], [1] * 4]),
    "many items": ({"type": "array", "minItems": 300, "maxItems": 5000}, [[1] * 300, [1] * 5000], [[1] * 299, [1] * 5001]),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
        [[], [1], [1, "x"]],
        [["x"], [1, 2], [1, "x", 3]],
    ),
    "prefixItems with more": (
        {"type": "array", "prefixItems": [{"const": "a"}], "items": {"type": "integer"}, "minItems": 2},
        [["a", 1], ["a", 1, 2]],
        [[], ["a"], ["b", 1], ["a", "x"]],
    ),
    "contains": ({"type": "array", "contains": {"const": 7}}, [[7], [1, 7, 2], [7, 7]], [[], [1], [1, 2, 3]]),
    "minContains and maxContains": (
        {"type": "array", "items": {"type": "integer"}, "contains": {"minimum": 5}, "minContains": 2, "maxContains": 3},
        [[5, 6], [1, 5, 2, 6], [5, 5, 5, 1]],
        [[5], [1, 1], [5, 5, 5, 5], ["x", 5, 5]],
    ),
    "contains with counts": (
        {"type": "array", "contains": {"type": "string"}, "minItems": 2, "maxItems": 3},
        [["a", 1], [1, 2, "a"]],
        [["a"], [1, 2, 3], [1, 2, 3, "a"]],
    ),
    "enum": ({"enum": ["a", 1, None, {"k": [1]}, "ab"]}, ["a", 1, None, {"k": [1]}, "ab"], ["b", 2, "", {"k": []}, "abc"]),
    "enum narrowed by type": ({"type": "string", "enum": ["a", 1, None]}, ["a"], [1, None, "b"]),
    "enum narrowed by bounds": ({"enum": [1, 5, 9, "xxxx", "x"], "minimum": 4, "maxLength": 2}, [5, 9, "x"], [1, "xxxx"]),
    "enum narrowed by multipleOf": ({"enum": [3, 4, 9], "multipleOf": 3}, [3, 9], [4]),
    "enum narrowed by objects": (
        {"enum": [{"a": 1}, {"a": "x"}, [1, 1], [2]], "properties": {"a": {"type": "string"}}, "minItems": 2},
        [{"a": "x"}, [1, 1]],
        [{"a": 1}, [2]],
    ),
    "const": ({"const": {"a": [True, "ü"]}}, [{"a": [True, "ü"]}], [{"a": [True, "u"]}, {}]),
    "minLength and maxLength": ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "éé", "😀😀", '"""'], ["", "a", "abcd"]),
    "large maxLength": ({"type": "string", "maxLength": 5000}, ["", "x" * 5000], ["x" * 5001]),
    "large minLength": ({"type": "string", "minLength": 3000}, ["x" * 3000, "x" * 9000], ["x" * 2999]),
    "pattern anchored": ({"type": "string", "pattern": "^a[0-9]{2,3}$"}, ["a12", "a123"], ["a1", "a1234", "xa12", "a12x"]),
    "pattern unanchored": ({"type": "string", "pattern": "b+c"}, ["bc", "xbbcx"], ["", "b", "cb"]),
    "pattern with one anchor": ({"type": "string", "pattern": "^ab|yz$"}, ["abc", "xyz"], ["xab", "yza"]),
    "pattern with escapes": ({"type": "string", "pattern": '^["\\\\/]\\d\\s\\S\\w-$'}, ['"1 xy-', "\\2\tzz-"], ["x1 xy-", '"1xxy-']),
    "pattern and length": ({"type": "string", "pattern": "^[ab]*$", "minLength": 2, "maxLength": 3}, ["ab", "aba"], ["a", "abab", "ac"]),
    "two patterns": ({"allOf": [{"pattern": "^a"}, {"pattern": "z$"}], "type": "string"}, ["az", "abz"], ["a", "z", "ba"]),
    "pattern with lookahead": (
        {"type": "string", "pattern": "^(?!con$)(?=.*\\d)[a-z0-9]+$"},
        ["a1", "con1", "1con"],
        ["con", "abc", "A1"],
    ),
    "pattern large": ({"type": "string", "pattern": "^[a-z]{1,4000}$"}, ["a", "a" * 4000], ["", "a" * 4001, "A"]),
    "pattern large and length": ({"type": "string", "pattern": "^x{1,200}$", "maxLength": 3}, ["x", "xxx"], ["", "xxxx"]),
    "minimum": ({"type": "integer", "minimum": 17}, [17, 18, 99, 100, 12345], [16, 9, 0, -17]),
    "maximum": ({"type": "integer", "maximum": -3}, [-3, -4, -100], [-2, 0, 3]),
    "bounds around zero": ({"type": "integer", "minimum": -12, "maximum": 345}, [-12, 0, 9, 345], [-13, 346, 1000]),
    "exclusive bounds": ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10}, [1, 9], [0, 10, -1]),
    "fractional bounds of integers": ({"type": "integer", "minimum": 1.5, "maximum": 3.5}, [2, 3], [1, 4]),
    "decimal bounds": ({"type": "number", "minimum": -0.5, "maximum": 1.25}, [-0.5, 0, 1.25, 0.333, 1e-9], [-0.51, 1.26, 2, -1]),
    "exclusive decimal bounds": (
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        [0.5, 0.001, 0.999999, 1e-7],
        [0, 1, 1.5, -0.5],
    ),
    "bounds with a shared prefix": ({"type": "number", "minimum": 3.14, "maximum": 3.1416}, [3.14, 3.1415, 3.1416], [3.13, 3.14161, 3]),
    "multipleOf": ({"type": "integer", "multipleOf": 7}, [0, 7, -14, 700000], [1, 6, -8]),
    "multipleOf within bounds": ({"type": "integer", "multipleOf": 25, "minimum": 10, "maximum": 100}, [25, 50, 75, 100], [0, 10, 125]),
    "multipleOf ten": ({"type": "integer", "multipleOf": 1000, "minimum": 1}, [1000, 25000], [0, 100, 1500]),
    "multipleOf of a number": ({"type": "number", "multipleOf": 3}, [3, -6], [1, 4.5]),
    "anyOf": ({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]}, [1, "x"], ["xx", 0.5, None]),
    "anyOf beside type": (
        {"type": "object", "properties": {"a": True}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 1}, {"a": 1, "b": 1}],
        [{}, {"c": 1}, 1],
    ),
    "oneOf of types": ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, [1, "x"], [None, 0.5]),
    "oneOf exclusive": (
        {"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 7}]},
        [4, 8, -100],
        [5, 6, 7],
    ),
    "oneOf of required": (
        {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 1}, {"a": 1, "c": 2}],
        [{}, {"a": 1, "b": 2}],
    ),
    "oneOf with a tag": (
        {
            "oneOf": [
                {"type": "object", "properties": {"kind": {"const": "a"}, "v": {"type": "integer"}}, "required": ["kind"]},
                {"type": "object", "properties": {"kind": {"const": "b"}, "v": {"type": "string"}}, "required": ["kind"]},
            ]
        },
        [{"kind": "a", "v": 1}, {"kind": "b", "v": "x"}],
        [{"kind": "a", "v": "x"}, {"kind": "c"}, {}],
    ),
    "allOf": (
        {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]},
        [3, 5],
        [2, 6, "x"],
    ),
    "allOf of objects": (
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"a": {"minimum": 5}, "b": {"type": "string"}}},
            ]
        },
        [{"a": 5}, {"a": 6, "b": "x"}],
        [{"a": 4}, {"a": 5, "b": 1}, {"b": "x"}],
    ),
    "not type": ({"not": {"type": "string"}}, [1, None, []], ["x", ""]),
    "not enum": ({"type": "string", "not": {"enum": ["a", "bc"]}}, ["", "b", "ab", "bcd"], ["a", "bc"]),
    "not const of an integer": ({"type": "integer", "minimum": 0, "maximum": 9, "not": {"const": 5}}, [0, 4, 6], [5, 10]),
    "not required": ({"type": "object", "not": {"required": ["a"]}}, [{}, {"b": 1}], [{"a": 1}]),
    "not pattern": ({"type": "string", "not": {"pattern": "^x"}}, ["", "ax"], ["x", "xa"]),
    "not pattern beside a length": ({"type": "string", "not": {"pattern": "b$"}, "minLength": 1}, ["a", "ba"], ["", "b", "ab"]),
    "not minimum": ({"type": "integer", "not": {"minimum": 3}}, [2, -5], [3, 4]),
    "if then else": (
        {
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}, "v": True},
            "required": ["kind", "v"],
            "if": {"properties": {"kind": {"const": "a"}}},
            "then": {"properties": {"v": {"type": "integer"}}},
            "else": {"properties": {"v": {"type": "string"}}},
        },
        [{"kind": "a", "v": 1}, {"kind": "b", "v": "x"}],
        [{"kind": "a", "v": "x"}, {"kind": "b", "v": 1}],
    ),
    "if then": (
        {"type": "integer", "if": {"minimum": 10}, "then": {"multipleOf": 10, "maximum": 50}},
        [3, 9, 10, 50],
        [11, 60],
    ),
    "dependentRequired": (
        {"type": "object", "properties": {"a": True, "b": True}, "dependentRequired": {"a": ["b"]}},
        [{}, {"b": 1}, {"a": 1, "b": 1}],
        [{"a": 1}],
    ),
    "dependentSchemas": (
        {"type": "object", "properties": {"a": True, "b": True}, "dependentSchemas": {"a": {"properties": {"b": {"type": "string"}}}}},
        [{"b": 1}, {"a": 1, "b": "x"}, {"a": 1}],
        [{"a": 1, "b": 1}],
    ),
    "$ref": (
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}},
        [1],
        ["x"],
    ),
    "$ref beside others": ({"$ref": "#/$defs/n", "maximum": 5, "$defs": {"n": {"type": "integer"}}}, [1, 5], [6, "x"]),
    "recursion": (
        {
            "$ref": "#/$defs/tree",
            "$defs": {
                "tree": {
                    "type": "object",
                    "properties": {"v": {"type": "integer"}, "below": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                    "required": ["v"],
                }
            },
        },
        [{"v": 1}, {"v": 1, "below": [{"v": 2, "below": []}, {"v": 3}]}],
        [{}, {"v": 1, "below": [{}]}, {"v": 1, "below": [{"v": "x"}]}],
    ),
    "$anchor": ({"$ref": "#n", "$defs": {"x": {"$anchor": "n", "type": "integer"}}}, [1], ["x"]),
    "$id": (
        {"$id": "http://x.test/a", "$ref": "b#/$defs/n", "$defs": {"y": {"$id": "b", "$defs": {"n": {"type": "null"}}}}},
        [None],
        [1],
    ),
    "property named like a keyword": (
        {"type": "object", "properties": {"$ref": {"type": "integer"}, "type": {"type": "string"}}, "required": ["$ref"]},
        [{"$ref": 1, "type": "x"}],
        [{"$ref": "x"}, {"type": "x"}],
    ),
    "boolean schemas": ({"type": "object", "properties": {"a": True, "b": False}}, [{"a": 1}, {}], [{"b": 1}]),
    "escaped names": (
        {"type": "object", "properties": {'q"\\\n/~é': {"type": "integer"}}, "required": ['q"\\\n/~é'], "additionalProperties": False},
        [{'q"\\\n/~é': 1}],
        [{'q"\\\n/~é': "x"}, {}],
    ),
}  # fmt: skip
ROWS = [(name, schema, value, True) for name, (schema, good, _) in TABLE.items() for value in good]
ROWS += [(name, schema, value, False) for name, (schema, _, bad) in TABLE.items() for value in bad]


@pytest.mark.parametrize(("name", "schema", "value", "expected"), ROWS, ids=lambda item: str(item)[:40])
def test_the_rules_alone_decide_as_the_keyword_does(name, schema, value, expected):
    assert Draft202012Validator(schema).is_valid(value) is expected, "the row itself is wrong"
    assert rules_hold(schema, value) is expected


@pytest.mark.parametrize("name", TABLE)
def test_what_the_rules_hold_is_not_listed_as_late(name):
    assert compile_schema(TABLE[name][0]).late_checks == ()


FORMATS = {
    "date": (["2024-02-29", "1999-12-31"], ["2023-02-29", "2024-13-01", "2024-1-1", "20240101"]),
    "time": (["12:30:00Z", "23:59:59.123+05:30"], ["12:30", "24:00:00Z", "12:30:00"]),
    "date-time": (["2024-02-29T12:00:00Z"], ["2024-02-30T12:00:00Z", "2024-02-29", "2024-02-29 12:00:00Z"]),
    "duration": (["P1Y2M3D", "PT5M", "P3W"], ["P", "PT", "1Y", "P1Y1W"]),
    "email": (["a.b+c@x-y.org"], ["a", "@x.org", "a@", "a b@x.org", "a@-x.org", ".a@x.org"]),
    "hostname": (["example.com", "a-b.c"], ["-a.b", "a..b", "a_b", "x" * 64]),
    "ipv4": (["0.0.0.0", "255.249.199.9"], ["256.1.1.1", "1.2.3", "01.2.3.4"]),
    "ipv6": (
        ["::", "::1", "1:2:3:4:5:6:7:8", "fe80::1:2", "::ffff:1.2.3.4"],
        ["1", ":::", "1:2:3:4:5:6:7:8:9", "g::"],
    ),
    "uri": (["https://x.org/a?b=c#d", "mailto:a@b", "urn:x:y"], ["//x", "x", "http://a b", "http://[1]"]),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567", "123e4567-e89b-12d3-a456-42661417400g"]),
}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [(name, text, True) for name, (good, _) in FORMATS.items() for text in good]
    + [(name, text, False) for name, (_, bad) in FORMATS.items() for text in bad],
)
def test_formats_are_held_by_the_rules_and_by_the_last_check(name, text, expected):
    schema = {"type": "string", "format": name}
    assert rules_hold(schema, text) is expected
    assert (compile_schema(schema).validate(text) is None) is expected


def test_an_unknown_format_is_an_annotation():
    assert rules_hold({"type": "string", "format": "colour"}, "anything")
