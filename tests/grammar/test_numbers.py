"""Numbers within bounds, against decimal arithmetic: texts near and far from the bounds, exactly decided."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from edge.grammar import compile_schema
from tests.grammar.helpers import compiled_or_none, follows

BOUNDS = (
    0,
    1,
    -1,
    10,
    100,
    0.5,
    -0.25,
    99.9,
    12.34,
    -7,
    180,
    -180,
    0.001,
    3.14159,
    9,
    19,
    20,
    -100,
    1000000,
    2999,
)
STEPS = tuple(
    map(
        Decimal,
        ("0", "0.1", "-0.1", "1", "-1", "0.01", "-0.001", "0.05", "7", "-33", "100.5", "1000", "0.000001"),
    )
) + tuple(map(Decimal, (20, -20, 10, -90)))


def text_of(value: Decimal) -> str:
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def random_schema(choose: random.Random) -> dict[str, object]:
    schema: dict[str, object] = {"type": choose.choice(("integer", "number", "number"))}
    for keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        if choose.random() < 0.35:
            schema[keyword] = choose.choice(BOUNDS)
    if schema["type"] == "integer" and choose.random() < 0.3:
        schema["multipleOf"] = choose.choice((2, 3, 5, 7, 10, 20, 100))
    return schema


def satisfies(schema: dict[str, object], value: Decimal) -> bool:
    def bound(keyword: str) -> Decimal:
        return Decimal(repr(schema[keyword]))

    if schema["type"] == "integer" and value != value.to_integral_value():
        return False
    return (
        ("minimum" not in schema or value >= bound("minimum"))
        and ("exclusiveMinimum" not in schema or value > bound("exclusiveMinimum"))
        and ("maximum" not in schema or value <= bound("maximum"))
        and ("exclusiveMaximum" not in schema or value < bound("exclusiveMaximum"))
        and ("multipleOf" not in schema or value % bound("multipleOf") == 0)
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_number_is_accepted_exactly_if_arithmetic_says_so(seed):
    choose = random.Random(seed)
    for _ in range(40):
        schema = random_schema(choose)
        starts = [Decimal(repr(value)) for value in schema.values() if not isinstance(value, str)] + [
            Decimal(50)
        ]
        values = [choose.choice(starts) + choose.choice(STEPS) for _ in range(40)]
        values += [value.to_integral_value() for value in values[::2]]
        expected = {text_of(value): satisfies(schema, value) for value in values}
        compiled = compiled_or_none(schema)
        if compiled is None:
            assert not any(expected.values()), (schema, expected)
            continue
        assert {text: follows(compiled, text) for text in expected} == expected, schema


@pytest.mark.parametrize(
    ("schema", "text", "accepted"),
    [
        ({"type": "number", "minimum": 0}, "1e5", True),
        ({"type": "number", "minimum": 0}, "1e-7", True),
        ({"type": "number", "minimum": 0}, "-1e-7", False),
        ({"type": "number", "minimum": 0, "maximum": 1}, "9.9e-1", True),
        ({"type": "number", "minimum": 0, "maximum": 0.5}, "9.9e-1", False),
        ({"type": "number", "minimum": 20}, "1e1", False),
        ({"type": "number", "minimum": 10}, "1e1", True),
        ({"type": "number", "exclusiveMinimum": 10}, "1e1", False),
        ({"type": "number", "exclusiveMaximum": 1}, "9.99999999999999999e-1", False),
        ({"type": "number", "exclusiveMaximum": 1}, "9.9999e-1", True),
        ({"type": "number", "maximum": 0}, "-3e2", True),
        ({"type": "number", "exclusiveMinimum": 0}, "0.0", False),
        ({"type": "number", "exclusiveMinimum": 0}, "0.000", False),
        ({"type": "number", "maximum": 1.5}, "1.50", True),
        ({"type": "number", "exclusiveMaximum": 1.5}, "1.50", False),
        ({"type": "number", "exclusiveMaximum": 1.5}, "1.49999", True),
        ({"type": "integer", "minimum": 0}, "00", False),
        ({"type": "integer"}, "-0", False),
        ({"type": "integer"}, "1.0", False),
    ],
)
def test_other_ways_to_write_a_number_are_decided_by_its_value(schema, text, accepted):
    assert follows(compile_schema(schema), text) is accepted


def test_no_text_beyond_an_exclusive_bound_rounds_onto_it():
    compiled = compile_schema({"type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 100})
    for text in ("0.1000000000000000001", "99.99999999999999999999"):
        assert float(text) in (0.1, 100.0)
        assert not follows(compiled, text)
