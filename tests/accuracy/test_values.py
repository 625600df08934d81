from __future__ import annotations

import pytest

from edge.accuracy.values import Fields, arguments_match, example_arguments, same_value


@pytest.mark.parametrize(
    ("actual", "accepted", "ok"),
    [
        ("Rome", "rome", True),
        (" Rome ", "Rome", True),
        ("STRASSE", "straße", True),
        ("straße", "STRASSE", True),
        ("Rome", "Roma", False),
        ("5", 5, False),
        (5, "5", False),
        (5, 5.0, True),
        (0.1 + 0.2, 0.3, True),
        (5, 5.1, False),
        (10**400, 10**400, True),
        (10**400, 1.5, False),
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        (None, None, True),
        (0, None, False),
        ([1, "A"], [1.0, "a"], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 2], False),
        ("ab", ["a", "b"], False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ([{"x": "anything"}], {"$any": True}, True),
        ({"mode": "cool", "level": 3}, Fields({"mode": ("COOL", "AUTO"), "level": (1, 3)}), True),
        ({"mode": "heat", "level": 3}, Fields({"mode": ("COOL", "AUTO"), "level": (1, 3)}), False),
    ],
)
def test_same_value(actual, accepted, ok):
    assert same_value(actual, accepted) is ok


@pytest.mark.parametrize(
    ("actual", "ok"),
    [
        ({"city": "rome"}, True),
        ({"city": "Roma", "unit": "celsius"}, True),
        ({"city": "Rome", "unit": ""}, True),
        ({"city": "Rome", "unit": "kelvin"}, False),
        ({"unit": "celsius"}, False),
        ({"city": "Rome", "when": "now"}, False),
        ({}, False),
    ],
)
def test_arguments_may_be_left_out_where_that_is_accepted(actual, ok):
    assert arguments_match(actual, {"city": ("Rome", "Roma"), "unit": ("celsius", "")}) is ok


def test_an_example_takes_the_first_values_and_leaves_out_what_may_be():
    accepted = {"city": ("Rome", "Roma"), "unit": ("celsius", ""), "body": ({"$any": True},), "n": ("", 3)}
    properties = {"body": {"type": "integer"}, "n": {"type": "integer"}}
    example = example_arguments(accepted, properties, ["city", "body", "n"])
    assert example == {"city": "Rome", "body": 1, "n": 3}
    assert arguments_match(example, accepted)
