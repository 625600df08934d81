"""The evaluation's counts, worked by hand on scripted runs."""

from __future__ import annotations

import json

import pytest

from edge.errors import OpenWorldError
from edge.tools.open_world.evaluate import evaluate, read_episodes, summarize
from edge.tools.retrieval.index import ToolIndex
from edge.types import MalformedCall
from tests.tools.open_world.conftest import MAIL, PROFILE, WEATHER, Policy, call, chosen

FINISH = [call("Finish", return_type="give_answer", final_answer="Rain.")]
GIVE_UP = [call("Finish", return_type="give_up_and_restart")]


@pytest.fixture
def index():
    return ToolIndex.in_memory([WEATHER, MAIL])


def episodes(tmp_path, index, *rows):
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_episodes(path, index.ids())


BOTH = {"query": "weather by mail", "relevant": ["w/get_weather", "m/send_mail"]}
ONE = {"query": "weather", "relevant": ["w/get_weather"]}


def test_two_requests_worked_by_hand(tmp_path, index):
    policy = Policy(
        # The first: one malformed step, both tools shown, one chosen, three calls of which one is valid and runs.
        "hm",
        "<search>weather or mail",
        chosen("get_weather"),
        [call("get_weather", city="Oslo"), call("get_weather", town="Oslo")],
        [MalformedCall("{", "not JSON")],
        FINISH,
        # The second: four searches for nothing, no tools.
        *["<search>zebra"] * 4,
    )
    results = evaluate(policy, index, episodes(tmp_path, index, BOTH, ONE), PROFILE)
    report = summarize(results)
    assert policy.script == []
    assert report.rounds == (1 + 4) / 2
    assert report.format_rate == (10 - 2) / 10  # "hm" and the malformed call
    assert report.finish_rate == 0.5
    assert (report.gold_recall, report.gold_found) == (0.25, 0.5)
    assert report.calls == 1.0
    assert report.call_validity == pytest.approx(1 / 3)
    assert report.call_success == 1.0
    assert report.outcomes == {"finished": 1, "no_tools": 1}
    assert report.choices == {"chosen": 1, "nothing": 1}


def test_with_an_api_list_nothing_is_searched(tmp_path, index):
    policy = Policy([call("send_mail", to="Ann")], GIVE_UP)
    report = summarize(evaluate(policy, index, episodes(tmp_path, index, BOTH), PROFILE, with_api_list=True))
    assert [tool.name for tool in policy.requests[0].tools] == ["get_weather", "send_mail", "Finish"]
    assert (report.rounds, report.gold_recall, report.finish_rate) == (0, 1, 0)
    assert report.outcomes == {"gave_up": 1}
    assert report.call_validity == 1.0


def test_recorded_responses_are_given_back(tmp_path, index):
    recorded = {"name": "get_weather", "arguments": {"city": "Oslo"}, "response": {"sky": "rain"}}
    policy = Policy([call("get_weather", city="Oslo")], FINISH)
    evaluate(
        policy, index, episodes(tmp_path, index, ONE | {"responses": [recorded]}), PROFILE, with_api_list=True
    )
    assert json.loads(policy.said_to(1))["response"] == {"sky": "rain"}


def test_shares_of_what_does_not_occur_are_none(tmp_path, index):
    report = summarize(
        evaluate(Policy(FINISH), index, episodes(tmp_path, index, ONE), PROFILE, with_api_list=True)
    )
    assert (report.call_validity, report.call_success) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "are empty"),
        ("{", "line 1 is not JSON"),
        ("[1]", "entry 1 is no object"),
        ('{"query": "", "relevant": ["m/send_mail"]}', "line 1: query is missing or empty"),
        ('{"query": "x"}', "line 1: relevant is no list"),
        ('{"query": "x", "relevant": ["y"]}', "line 1: relevant names 'y'"),
        ('{"query": "x", "relevant": ["m/send_mail"], "responses": {}}', "line 1: responses is no list"),
        ('{"query": "x", "relevant": ["m/send_mail"], "responses": [{}]}', "line 1: a response is"),
    ],
)
def test_bad_requests_are_one_line_that_says_where(tmp_path, index, text, message):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(OpenWorldError) as caught:
        read_episodes(path, index.ids())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_requests_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(OpenWorldError, match="cannot be read"):
        read_episodes(tmp_path / "none", [])
