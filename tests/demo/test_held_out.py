"""Nothing of the evaluation is in the training examples. The first half of these tests does not use HeldOut."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from demo.composer import Composer
from demo.held_out import HeldOut
from tests.demo.support import EVAL, REPO, borrowed, user_texts

SHARED = REPO.parent / "shared" / "data"


@pytest.fixture(scope="session")
def said(groups) -> set[str]:
    return {text for group in groups for dialog in group["dialogs"] for text in user_texts(dialog)}


def cases(name: str) -> list[dict]:
    return [json.loads(line) for line in (EVAL / name).read_text(encoding="utf-8").splitlines()]


def inline_tools(name: str) -> list[dict]:
    return [tool for case in cases(name) for tool in case["tools"] if isinstance(tool, dict)]


def canonical(tool: dict) -> str:
    return json.dumps(tool["function"], sort_keys=True)


def test_the_evaluation_has_200_cases_in_the_cards_counts_and_60_of_tools_of_its_own():
    counts = Counter(case["scenario"] for case in cases("cases.jsonl"))
    assert counts == {
        "multi_tool_parallel": 18, "multi_tool_sequential": 36, "no_tool_needed": 18, "single_tool": 53,
        "error_recovery": 18, "reasoning_heavy": 35, "complex_multi_step": 22,
    }  # fmt: skip
    unseen = cases("unseen.jsonl")
    assert len(unseen) == 60
    assert all(isinstance(tool, dict) for case in unseen for tool in case["tools"])
    ids = [case["id"] for case in (*cases("cases.jsonl"), *unseen)]
    assert len(set(ids)) == 260


def test_no_request_of_the_evaluation_is_trained_on(said):
    held = {
        text for name in ("cases.jsonl", "unseen.jsonl") for case in cases(name) for text in user_texts(case)
    }
    assert len(held) > 240
    assert borrowed(said, held) == []


def test_no_schema_of_the_evaluation_is_trained_on(groups):
    listed = json.loads((EVAL / "tools.json").read_text(encoding="utf-8"))
    held = {canonical(t) for t in (*listed, *inline_tools("cases.jsonl"), *inline_tools("unseen.jsonl"))}
    shown = {canonical(tool) for group in groups for tool in group["tools"]}
    assert len(held) > 100
    assert not shown & held


def test_no_tool_that_only_the_evaluation_has_is_trained_on(groups):
    listed = {t["function"]["name"] for t in json.loads((EVAL / "tools.json").read_text(encoding="utf-8"))}
    own = {
        t["function"]["name"] for name in ("cases.jsonl", "unseen.jsonl") for t in inline_tools(name)
    } - listed
    shown = {tool["function"]["name"] for group in groups for tool in group["tools"]}
    assert len(own) > 100
    assert not shown & own


@pytest.mark.skipif(not SHARED.exists(), reason="the outside cases are not here")
def test_no_sentence_of_the_outside_cases_is_trained_on(said):
    held: set[str] = set()
    for path in sorted(SHARED.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if isinstance(row.get("query"), str):
                held.add(row["query"])
            held |= set(user_texts(row)) if isinstance(row.get("messages"), list) else set()
    assert len(held) > 1000
    assert borrowed(said, held) == []


def test_the_comparison_itself_finds_what_is_borrowed():
    held = {"Could you tell me what the weather in Bergen will be like on Friday?"}
    assert borrowed({"could you tell me what the weather in bergen will be like on friday"}, held)
    assert borrowed({"Hi! Could you tell me what the weather in Bergen will be like on Monday?"}, held)
    assert not borrowed({"What will the weather in Bergen be?"}, held)


def write_eval(folder: Path, *, text: str, tool: dict) -> HeldOut:
    case = {"messages": [{"role": "user", "content": text}], "tools": [tool]}
    (folder / "unseen.jsonl").write_text(json.dumps(case) + "\n", encoding="utf-8")
    return HeldOut.read(folder)


def bee_tool(**changed) -> dict:
    function = {
        "name": "count_bees",
        "description": "Count the bees of a hive",
        "parameters": {"type": "object", "properties": {"hive": {"type": "string", "description": "Label"}}},
    }
    return {"type": "function", "function": {**function, **changed}}


@pytest.mark.parametrize(
    ("text", "is_held"),
    [
        ("Please count the bees in hive seven for me", True),
        ("please COUNT the bees in hive seven, for me!!", True),
        ("Please count the bees in hive eight for me", True),  # one word of nine is another
        ("Count bees", False),
        ("Please count the sheep on meadow seven for Ada", False),
        ("", False),
    ],
)
def test_a_sentence_like_one_of_the_evaluation_is_held_out(tmp_path, text, is_held):
    held = write_eval(tmp_path, text="Please count the bees in hive seven for me", tool=bee_tool())
    assert held.has_text(text) is is_held


def test_a_tool_and_a_schema_of_the_evaluation_are_held_out(tmp_path):
    held = write_eval(tmp_path, text="Count", tool=bee_tool())
    described = {"type": "object", "properties": {"hive": {"type": "string", "description": "other words"}}}
    longer = {"type": "object", "properties": {"hive": {"type": "integer"}}}
    assert held.has_tool("count_bees")
    assert not held.has_tool("count_sheep")
    assert held.has_schema(bee_tool())
    assert held.has_schema(bee_tool(parameters=described))
    assert not held.has_schema(bee_tool(parameters=longer))
    assert not held.has_schema(bee_tool(name="count_sheep"))


def test_what_the_evaluation_has_too_is_not_composed(tmp_path, material):
    free = list(Composer(material, 3, HeldOut.read(tmp_path)).groups(150))
    text = free[0].dialogs[0]["messages"][0]["content"]
    tool = free[1].tools[0]
    (tmp_path / "tools.json").write_text(json.dumps([tool]), encoding="utf-8")
    held = write_eval(tmp_path, text=text, tool=bee_tool(name=free[2].tools[0]["function"]["name"]))

    composer = Composer(material, 3, held)
    again = list(composer.groups(150))

    said = [text for group in again for dialog in group.dialogs for text in user_texts(dialog)]
    shown = [tool for group in again for tool in group.tools]
    assert text not in said
    assert tool not in shown
    assert free[2].tools[0]["function"]["name"] not in {tool["function"]["name"] for tool in shown}


def test_what_is_left_out_is_counted(tmp_path, material):
    group = next(iter(Composer(material, 3, HeldOut.read(tmp_path)).groups(1)))
    held = HeldOut.read(tmp_path)
    for dialog in group.dialogs:
        held = write_eval(tmp_path, text=user_texts(dialog)[0], tool=bee_tool())
        composer = Composer(material, 3, held)
        next(iter(composer.groups(1)))
        if any(held.has_text(text) for text in user_texts(dialog)):
            assert composer.dropped["like a sentence of the evaluation"] >= 1
            return
    raise AssertionError("every sentence of the group is too short to be held out")
