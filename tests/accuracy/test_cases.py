from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge.accuracy.answers import Answer, MadeCall
from edge.accuracy.cases import read_cases
from edge.accuracy.errors import CasesError
from edge.accuracy.metrics import score
from edge.accuracy.values import Fields
from edge.errors import ToolsError
from tests.accuracy.conftest import WEATHER, case_row, weather, write_rows

SHIPPED = Path(__file__).parents[2] / "edge/examples/check/cases.jsonl"


def test_a_case_is_read_as_it_is_written(tmp_path):
    (case,) = read_cases(write_rows(tmp_path / "c.jsonl", [case_row("a", weather("Rome"))])).cases
    assert (case.id, case.scenario) == ("a", "one")
    assert [tool.name for tool in case.tools] == ["get_weather", "get_time"]
    assert case.expected[0].arguments == {"city": ("Rome",)}


@pytest.mark.parametrize("given", [True, False])
def test_bare_tool_names_mean_a_tools_file(tmp_path, given):
    file = tmp_path / ("mine.json" if given else "tools.json")
    file.write_text(json.dumps([WEATHER]))
    path = write_rows(tmp_path / "c.jsonl", [case_row("a", weather("Rome"), tools=["get_weather"])])
    (case,) = read_cases(path, file if given else None).cases
    assert case.tools[0].name == "get_weather"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": 5}, "id is 5; a non-empty string is needed"),
        ({"scenario": ""}, 'scenario is ""; a non-empty string is needed'),
        ({"messages": "hi"}, 'messages is "hi"; a list of chat messages is needed'),
        ({"messages": []}, "there are no messages"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "the role 'wizard'"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "the last message is the assistant's"),
        ({"tools": ["nope"]}, "there is no tool 'nope'"),
        ({"tools": [{"name": "x", "parameters": {"type": "nonsense"}}]}, "'type'"),
        ({"expected": None}, "expected is missing; a list of calls is needed"),
        (
            {"expected": [{"name": "fly"}]},
            "expected[0] calls 'fly'; the case's tools are get_time, get_weather",
        ),
        ({"expected": ["get_weather"]}, 'expected[0] is "get_weather"'),
        (
            {"expected": [{"name": "get_weather", "arguments": {"city": "Rome"}}]},
            'expected[0].arguments.city is "Rome"; a list of acceptable values is needed',
        ),
        ({"expected": [{"name": "get_weather", "arguments": {"city": []}}]}, "arguments.city is []"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, changes, said):
    path = write_rows(tmp_path / "c.jsonl", [case_row("a"), case_row("b", **changes)])
    with pytest.raises(CasesError) as caught:
        read_cases(path)
    assert [line for line, _ in caught.value.faults] == [2]
    assert "line 2: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_bad_lines_are_counted_and_some_named(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(["{", "[]", "", *["nonsense"] * 6]))
    with pytest.raises(
        CasesError, match=r"line 1: not JSON: .*; line 2: a JSON list; .*; and 3 more lines"
    ) as caught:
        read_cases(path)
    assert [line for line, _ in caught.value.faults] == [1, 2, 4, 5, 6, 7, 8, 9]


def test_ids_must_differ(tmp_path):
    with pytest.raises(CasesError, match="line 2: id 'a' is also that of line 1"):
        read_cases(write_rows(tmp_path / "c.jsonl", [case_row("a"), case_row("a")]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "there is no case in this file"),
        (b"{}\n\xff", "line 2: byte 0xff is not UTF-8"),
        (b'{"id": ' + b"[" * 100_000, "line 1: not JSON"),
        (None, "it cannot be read"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, content, said):
    path = tmp_path / "c.jsonl"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(CasesError, match=said.replace("(", r"\(")):
        read_cases(path)


def test_a_bom_and_unusual_line_separators_are_text(tmp_path):
    path = tmp_path / "c.jsonl"
    row = case_row("a", messages=[{"role": "user", "content": "one\u2028two"}])
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n")
    assert read_cases(path).cases[0].messages[0]["content"] == "one\u2028two"


@pytest.mark.parametrize("content", ["{", '[{"name": ""}]', None])
def test_a_bad_tools_file_is_named(tmp_path, content):
    file = tmp_path / "t.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ToolsError, match=r"the tools file .*t\.json"):
        read_cases(write_rows(tmp_path / "c.jsonl", [case_row("a")]), file)


def test_bfcl_rows_are_read_and_those_that_cannot_be_judged_left_out(tmp_path):
    base = {"messages": [{"role": "user", "content": "?"}], "tools": [WEATHER]}
    rows = [
        {"id": "x", "category": "simple", **base, "expect_call": True,
         "ground_truth": [{"name": "get_weather", "arguments": {"city": ["Rome", ""]}}]},
        {"id": "y", "category": "irrelevance", **base, "expect_call": False},
        {"id": "z", "category": "live_relevance", **base, "expect_call": True, "ground_truth": []},
        {"id": "w", "category": "simple", **base, "expect_call": True, "example_calls_valid": False,
         "ground_truth": [{"name": "get_weather", "arguments": {"city": [{"name": ["Rome"]}]}}]},
        {"id": "v", "category": "simple", **base, "expect_call": True,
         "ground_truth": [{"name": "get_weather", "arguments": {"city": [{"name": ["Rome", "Roma"]}]}}]},
    ]  # fmt: skip
    found = read_cases(write_rows(tmp_path / "c.jsonl", rows))
    assert [case.id for case in found.cases] == ["x", "y", "v"]
    assert [line for line, _ in found.skipped] == [3, 4]
    assert found.cases[2].expected[0].arguments["city"] == (Fields({"name": ("Rome", "Roma")}),)


def test_a_bad_bfcl_row_is_named_too(tmp_path):
    rows = [{"id": "x", "category": "simple", "messages": [], "tools": [], "expect_call": False}]
    with pytest.raises(CasesError, match="line 1: there are no messages"):
        read_cases(write_rows(tmp_path / "c.jsonl", rows))


def test_the_limit_stops_before_later_lines(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(case_row("a")) + "\nnonsense\n")
    assert len(read_cases(path, limit=1).cases) == 1


def test_the_shipped_cases_cover_the_cards_scenarios_and_can_be_answered():
    found = read_cases(SHIPPED)
    assert len(found.cases) == 24
    assert {case.scenario for case in found.cases} == {
        "multi_tool_parallel", "multi_tool_sequential", "no_tool_needed", "single_tool", "error_recovery",
        "reasoning_heavy", "complex_multi_step",
    }  # fmt: skip
    for case in found.cases:
        assert score(case, ideal_answer(case)).right, case.id


def ideal_answer(case) -> Answer:
    from edge.accuracy.answers import read_text
    from edge.accuracy.forced_texts import expected_text

    _, _, calls = read_text(expected_text(case), case.compiled())
    return Answer(calls=tuple(MadeCall(call.name, call.arguments, call.fault) for call in calls))


@pytest.mark.skipif("CASES_FOLDER" not in os.environ, reason="CASES_FOLDER names no folder with bfcl.jsonl")
def test_all_of_bfcl_is_read_and_can_be_answered():
    found = read_cases(Path(os.environ["CASES_FOLDER"]) / "bfcl.jsonl")
    assert len(found.cases) > 1000
    assert len(found.skipped) < 20
    assert [case.id for case in found.cases if not score(case, ideal_answer(case)).right] == []
