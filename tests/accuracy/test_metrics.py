from __future__ import annotations

import pytest

from edge.accuracy.answers import Answer, MadeCall
from edge.accuracy.cases import read_cases
from edge.accuracy.metrics import METRICS, by_scenario, score, summarize
from tests.accuracy.conftest import case_row, weather, write_rows


@pytest.fixture
def case_of(tmp_path):
    def build(*expected, scenario="one"):
        return read_cases(
            write_rows(tmp_path / "c.jsonl", [case_row("a", *expected, scenario=scenario)])
        ).cases[0]

    return build


def call(city="Rome", name="get_weather", fault=""):
    return MadeCall(name, {"city": city}, fault)


BROKEN = MadeCall(None, None, "not JSON")
ROME, OSLO = weather("Rome"), weather("Oslo")


@pytest.mark.parametrize(
    ("expected", "calls", "precision", "recall", "f1", "right"),
    [
        ([ROME], [call()], 1, 1, 1, True),
        ([ROME], [call("Paris")], 1, 1, 1, False),  # the right tool with a wrong argument
        ([ROME], [call(name="get_time")], 0, 0, 0, False),
        ([ROME], [], 0, 0, 0, False),
        ([], [], 1, 1, 1, True),
        ([], [call()], 0, 0, 0, False),
        ([], [BROKEN], 0, 0, 0, False),
        ([ROME], [call(), BROKEN], 1 / 2, 1, 2 / 3, False),
        ([ROME], [call(), call()], 1 / 2, 1, 2 / 3, False),
        ([ROME, OSLO], [call("Oslo"), call("Rome")], 1, 1, 1, True),  # in any order
        ([ROME, OSLO], [call("Rome")], 1, 1 / 2, 2 / 3, False),
        ([ROME, OSLO], [call("Rome"), call("Rome")], 1, 1, 1, False),
        ([ROME], [call(fault="/city: too short")], 1, 1, 1, False),
    ],
)
def test_a_case_is_scored_by_hand_worked_numbers(case_of, expected, calls, precision, recall, f1, right):
    found = score(case_of(*expected), Answer(calls=tuple(calls)))
    got = [found.parts[name][0] for name in ("precision", "recall", "tool_selection_f1")]
    assert got == pytest.approx([precision, recall, f1])
    assert found.right is right


def test_an_answer_that_could_not_be_had_is_wrong_even_where_none_was_due(case_of):
    found = score(case_of(), Answer(error="too long"))
    assert not found.right
    assert found.f1 == 0
    assert found.parts["no_tool_accuracy"] == (0, 1)


def test_shares_are_over_all_calls_and_all_cases(case_of):
    scores = [
        score(case_of(ROME, OSLO), Answer(calls=(call("Rome"), call("Oslo", fault="/city: no"), BROKEN))),
        score(case_of(), Answer()),
        score(case_of(), Answer(calls=(call(),))),
    ]
    found = summarize(scores)
    assert found["json_validity"] == pytest.approx(3 / 4)
    assert found["schema_validity"] == pytest.approx(2 / 4)
    assert found["argument_match"] == pytest.approx(1 / 2)
    assert found["no_tool_accuracy"] == pytest.approx(1 / 2)
    assert found["case_accuracy"] == pytest.approx(1 / 3)
    assert found["tool_selection_f1"] == pytest.approx((2 * 2 / 5 + 1 + 0) / 3)
    assert sum(case.n_malformed for case in scores) == 2


def test_what_was_not_judged_has_no_value(case_of):
    found = summarize([score(case_of(ROME), Answer())])
    assert found["json_validity"] is None
    assert found["no_tool_accuracy"] is None
    assert set(found) == set(METRICS)


def test_scenarios_are_summed_apart(case_of):
    scores = [
        score(case_of(ROME, scenario="x"), Answer(calls=(call(),))),
        score(case_of(ROME, scenario="y"), Answer()),
    ]
    found = by_scenario(scores)
    assert [found[name]["tool_selection_f1"] for name in ("x", "y")] == [1, 0]
    assert found["x"]["cases"] == 1


def test_each_made_call_serves_one_expected_call_and_the_best_pairing_counts(tmp_path):
    row = case_row("a")
    row["expected"] = [
        {"name": "get_weather", "arguments": {"city": ["Rome", "Oslo"]}},
        {"name": "get_weather", "arguments": {"city": ["Rome"]}},
    ]
    (case,) = read_cases(write_rows(tmp_path / "c.jsonl", [row])).cases
    assert score(case, Answer(calls=(call("Rome"), call("Oslo")))).right
    assert not score(case, Answer(calls=(call("Oslo"), call("Oslo")))).right
