"""The examples that the trained adapter saw: how many, how varied, valid, and the same for everybody."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from datetime import date, timedelta

import pytest
from jsonschema import Draft202012Validator

from demo.compose import main
from demo.composer import Composer
from demo.held_out import HeldOut
from demo.material import SCENARIOS
from demo.pools import MONTHS
from tests.demo.conftest import N_EXAMPLES, SEED
from tests.demo.support import REPO, calls, user_texts

CORE = {
    "web_search", "get_webpage", "execute_python", "read_file", "write_file", "list_directory", "send_email",
    "get_current_datetime", "calculate", "translate", "get_weather", "create_calendar_event", "database_query",
    "http_request", "shell_command",
}  # fmt: skip


@pytest.fixture(scope="session")
def dialogs(groups) -> list[dict]:
    return [dialog for group in groups for dialog in group["dialogs"]]


def test_there_are_8000_examples_of_all_seven_scenarios(plain_groups):
    counts = Counter(dialog["scenario"] for group in plain_groups for dialog in group["dialogs"])
    assert counts.total() >= N_EXAMPLES > 8000
    assert set(counts) == set(SCENARIOS)
    assert min(counts.values()) > 400, counts


def test_one_to_eight_tools_are_offered(groups):
    counts = Counter(len(group["tools"]) for group in groups)
    assert set(counts) == set(range(1, 9)), counts
    assert min(counts.values()) > 20, counts


def test_all_15_tools_of_the_card_and_400_others_are_offered(groups, material):
    offered = Counter(tool["function"]["name"] for group in groups for tool in group["tools"])
    assert set(offered) >= CORE
    assert {name for name, tool in material.tools.items() if tool.is_core} == CORE
    assert len(material.tools.keys() - CORE) >= 400
    assert len(offered.keys() - CORE) >= 400


def test_these_are_the_bytes_that_the_adapter_was_trained_on(plain_groups, examples_path):
    # Also shows that nothing depends on the hash seed, which is another in every process.
    stated = (REPO / "demo" / "training" / "examples.sha256").read_text().split()[0]
    assert hashlib.sha256(examples_path.read_bytes()).hexdigest() == stated


def test_a_short_run_is_the_beginning_of_a_long_one_and_another_seed_gives_others(
    plain_material, plain_groups, examples_path
):
    whole = examples_path.read_text(encoding="utf-8").splitlines()
    again = [group.to_json() for group in Composer(plain_material, SEED, HeldOut.read()).groups(100)]
    other = [group.to_json() for group in Composer(plain_material, SEED + 1, HeldOut.read()).groups(100)]
    assert again == whole[: len(again)]
    assert not set(other) & set(again)


def test_every_call_that_is_learned_is_valid_for_the_tool_as_it_is_shown(groups):
    validators: dict[str, Draft202012Validator] = {}
    n_calls = 0
    for group in groups:
        tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in group["tools"]}
        for dialog in group["dialogs"]:
            for call in calls(dialog):
                schema = {**tools[call["name"]], "additionalProperties": False}
                key = json.dumps(schema, sort_keys=True)
                validator = validators.setdefault(key, Draft202012Validator(schema))
                assert validator.is_valid(call["arguments"]), (call, schema)
                n_calls += 1
    assert n_calls > 8000


def test_arguments_come_in_the_schemas_order(groups):
    for group in groups:
        order = {
            t["function"]["name"]: list(t["function"]["parameters"]["properties"]) for t in group["tools"]
        }
        for dialog in group["dialogs"]:
            for call in calls(dialog, trained_only=False):
                shown = [name for name in order[call["name"]] if name in call["arguments"]]
                assert list(call["arguments"]) == shown, call


def test_every_call_has_its_result_unless_the_dialogue_ends_with_it(dialogs):
    for dialog in dialogs:
        roles = [m["role"] for m in dialog["messages"]]
        assert roles[0] == "user"
        assert roles[-1] == "assistant"
        n_open = 0
        for message in dialog["messages"]:
            if message["role"] == "tool":
                n_open -= 1
                assert n_open >= 0, dialog
            else:
                assert n_open == 0, dialog
                n_open = len(message.get("tool_calls", ()))


def test_the_last_answer_is_text_where_no_tool_is_needed(dialogs):
    for dialog in dialogs:
        if dialog["scenario"] == "no_tool_needed":
            assert "tool_calls" not in dialog["messages"][-1], dialog


def test_a_tool_is_called_where_the_scenario_says_so(dialogs):
    # Reasoning may end in words: "No, the rule says so."
    for dialog in dialogs:
        if dialog["scenario"] not in ("no_tool_needed", "reasoning_heavy"):
            assert list(calls(dialog)), dialog


def test_a_call_is_masked_only_before_an_error_and_a_better_call(dialogs):
    n_masked = 0
    for dialog in dialogs:
        messages = dialog["messages"]
        for i, message in enumerate(messages):
            if message.get("train") is not False:
                continue
            n_masked += 1
            assert messages[i + 1]["role"] == "tool", dialog
            better = next(m for m in messages[i + 1 :] if m["role"] == "assistant")
            assert better["tool_calls"] != message["tool_calls"], dialog
    assert n_masked > 100


def test_a_day_is_spoken_of_relatively_only_where_today_is_stated(groups):
    relative = re.compile(r"\bthe day after tomorrow\b|\bthis coming \w+day\b|\btwo weeks from today\b")
    stated = re.compile(r"\b20\d\d\b")
    n_relative = 0
    for group in groups:
        texts = [text for dialog in group["dialogs"] for text in user_texts(dialog)]
        if any(map(relative.search, texts)):
            n_relative += 1
            asks = "get_current_datetime" in {tool["function"]["name"] for tool in group["tools"]}
            assert asks or stated.search(group["system"]), (group["system"], texts)
    assert n_relative > 50


def test_no_two_dialogues_of_a_group_say_the_same(groups):
    for group in groups:
        said = [tuple(user_texts(dialog)) for dialog in group["dialogs"]]
        assert len(set(said)) == len(said)


def test_no_slot_stays_open(groups):
    slot = re.compile(r"\{(=|#)|\{[a-z_]+\d?!?\}")
    for group in groups:
        for dialog in group["dialogs"]:
            for text in user_texts(dialog):
                assert not slot.search(text), text


def _dialogs(material, n_examples: int, **shares: float) -> list[dict]:
    groups = Composer(material, SEED, HeldOut.read(), **shares).groups(n_examples)
    return [dialog for group in groups for dialog in group.dialogs]


def test_no_easy_dialogue_stays_where_none_is_wanted(material):
    scenarios = {dialog["scenario"] for dialog in _dialogs(material, 300, easy_share=0.0)}
    assert scenarios == set(SCENARIOS) - {"single_tool", "multi_tool_parallel"}


def test_an_easy_dialogue_that_is_not_answered_ends_with_its_call_and_others_stay_whole(material):
    ends: dict[str, Counter[str]] = {}
    for dialog in _dialogs(material, 600, answered_share=0.0):
        messages = dialog["messages"]
        is_cut = bool(messages[-1].get("tool_calls"))
        is_thanked = [m["role"] for m in messages[-3:]] == ["assistant", "user", "assistant"]
        ends.setdefault(dialog["scenario"], Counter())[
            "cut" if is_cut else "thanked" if is_thanked else "whole"
        ] += 1
        assert list(calls(dialog)) or dialog["scenario"] in ("no_tool_needed", "reasoning_heavy"), dialog
    for easy in ("single_tool", "multi_tool_parallel"):
        assert ends[easy]["cut"] > 5 * ends[easy]["thanked"], ends
        assert not ends[easy]["whole"], ends
    assert ends["error_recovery"]["whole"] > ends["error_recovery"]["cut"], ends
    assert ends["multi_tool_sequential"]["whole"] > 0


def test_a_dialogue_that_is_not_finished_ends_with_its_last_call_and_text_alone_stays(material):
    n_cut = Counter[str]()
    for dialog in _dialogs(material, 600, finished_share=0.0):
        messages = dialog["messages"]
        if messages[-1].get("tool_calls"):
            n_cut[dialog["scenario"]] += 1
            assert messages[-1].get("train") is not False, dialog
            continue
        last_call = max((i for i, m in enumerate(messages) if m.get("tool_calls")), default=None)
        behind = messages if last_call is None else messages[last_call + 1 :]
        # Nothing is called, or more was said than the answer to the last results; easy ones have their own share.
        n_said = sum(m["role"] != "tool" for m in behind)
        is_easy = dialog["scenario"] in ("single_tool", "multi_tool_parallel")
        assert is_easy or last_call is None or n_said != 1, dialog
    assert min(n_cut[s] for s in ("error_recovery", "multi_tool_sequential", "reasoning_heavy")) > 10, n_cut


def test_groups_about_days_state_the_date_and_their_calls_hold_the_day_that_is_meant(plain_material):
    n_meant = Counter[str]()
    for group in Composer(plain_material, SEED, HeldOut.read(), dated_share=1.0).groups(600):
        today = _stated_day(group.system)
        for dialog in group.dialogs:
            (said,) = user_texts(dialog)
            meant = [today + timedelta(days=int(n)) for n in re.findall(r"\bin (\d) days\b", said)]
            if re.search(r"(?<!after )\btomorrow\b", said):
                meant.append(today + timedelta(days=1))
            filled = json.dumps([call["arguments"] for call in calls(dialog)])
            for day in meant:
                assert day.isoformat() in filled, (group.system, said, filled)
            n_meant[len(meant)] += 1
    assert n_meant[1] > 100, n_meant


def _stated_day(system: str) -> date:
    """As one of the forms says it: 2026-03-04, 4 March 2026, March 4, 2026."""
    if iso := re.search(r"\d{4}-\d\d-\d\d", system):
        return date.fromisoformat(iso[0])
    numbers = re.search(r"\b(\d\d?) [A-Z]\w+ (\d{4})|[A-Z]\w+ (\d\d?),? (\d{4})", system)
    month = next(n for n, name in enumerate(MONTHS, start=1) if name in system)
    day, year = (int(number) for number in numbers.groups() if number)
    return date(year, month, day)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "none/x.jsonl"], "there is no folder none to write into"),
        (["--out", "."], ". is a folder; --out names the file to write"),
        (
            ["--out", "x.jsonl", "--without", "core*", "--without", "[!c]*"],
            "no *.yaml to read; there are core_dialogs_1",
        ),
        (
            ["--out", "x.jsonl", "--without", "core*", "--without", "setting_h*"],
            "--without setting_h* names no file of",
        ),
        (["--out", "x.jsonl", "--examples", "0"], "--examples is 0; at least 1 is needed"),
        (
            ["--out", "x.jsonl", "--answered-share", "5"],
            "--answered-share is 5.0; a share lies between 0 and 1",
        ),
        (
            ["--out", "x.jsonl", "--finished-share", "-1"],
            "--finished-share is -1.0; a share lies between 0 and 1",
        ),
        (["--out", "x.jsonl", "--easy-share", "nan"], "--easy-share is nan; a share lies between 0 and 1"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(arguments, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
