"""What is trained on is, token for token, what the engine reads and is to write."""

from __future__ import annotations

import json

import pytest

from demo.packs import TEMPLATE, read_packs
from edge.chat.template import ChatTemplate, render_prompt
from edge.grammar.tools import parse_tools
from tests.demo.support import calls

N_GROUPS = 60
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "description": "1 to 7"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def some_groups(groups) -> list[dict]:
    """Every 30th group: of all kinds."""
    return groups[:: len(groups) // N_GROUPS]


@pytest.fixture
def write(tmp_path):
    def write(groups):
        path = tmp_path / "examples.jsonl"
        path.write_text("".join(json.dumps(group) + "\n" for group in groups), encoding="utf-8")
        return path

    return write


def numbered(messages: list[dict]) -> list[dict]:
    """With call ids, as a server would get them."""
    out, waiting = [], []
    for message in messages:
        new = {key: value for key, value in message.items() if key != "train"}
        if "tool_calls" in new:
            new["tool_calls"] = [
                {**call, "id": f"c{len(out)}.{i}"} for i, call in enumerate(new["tool_calls"])
            ]
            waiting = [call["id"] for call in new["tool_calls"]]
        if new["role"] == "tool":
            new["tool_call_id"] = waiting.pop(0)
        out.append(new)
    return out


def prompt(group: dict, messages: list[dict]) -> str:
    template = ChatTemplate(TEMPLATE.read_text(encoding="utf-8"), "test")
    system = [{"role": "system", "content": group["system"]}] if group["system"] else []
    return render_prompt(template, [*system, *numbered(messages)], parse_tools(group["tools"])).text


def written_answer(message: dict) -> str:
    calls = [
        f'<tool_call>\n{{"name": {json.dumps(c["function"]["name"])}, '
        f'"arguments": {json.dumps(c["function"]["arguments"], ensure_ascii=False)}}}\n</tool_call>'
        for c in message.get("tool_calls", ())
    ]
    return (message["content"] or "\n".join(calls)) + "<|im_end|>"


def test_the_ids_are_those_of_the_engine_at_every_answer(some_groups, write, tokenizer, demo_engine):
    packs = list(read_packs(write(some_groups), tokenizer, max_tokens=100_000))
    n_answers = 0
    for group, pack in zip(some_groups, packs, strict=True):
        for dialog, branch in zip(group["dialogs"], pack.branches, strict=True):
            ids = list(pack.prefix + branch.ids)
            for i, message in enumerate(dialog["messages"]):
                if message["role"] != "assistant":
                    continue
                n_answers += 1
                seen = demo_engine.tokenize(prompt(group, dialog["messages"][:i]))
                said = demo_engine.tokenize(written_answer(message))
                assert ids[: len(seen) + len(said)] == seen + said, (group["system"], dialog)
    assert n_answers > 5 * N_GROUPS


def test_targets_are_the_assistants_texts_to_their_end_and_nothing_else(some_groups, write, tokenizer):
    packs = read_packs(write(some_groups), tokenizer, max_tokens=100_000)
    for group, pack in zip(some_groups, packs, strict=True):
        for dialog, branch in zip(group["dialogs"], pack.branches, strict=True):
            learned = [id_ for id_, is_target in zip(branch.ids, branch.is_target, strict=True) if is_target]
            said = [
                written_answer(m)
                for m in dialog["messages"]
                if m["role"] == "assistant" and m.get("train", True)
            ]
            assert tokenizer.decode(learned, skip_special_tokens=False) == "".join(said)


def test_names_are_those_of_the_calls_that_are_learned(some_groups, write, tokenizer):
    packs = read_packs(write(some_groups), tokenizer, max_tokens=100_000)
    n_named = 0
    for group, pack in zip(some_groups, packs, strict=True):
        for dialog, branch in zip(group["dialogs"], pack.branches, strict=True):
            named = tokenizer.decode(
                [id_ for id_, is_name in zip(branch.ids, branch.is_name, strict=True) if is_name]
            )
            called = [call["name"] for call in calls(dialog)]
            assert named == "".join(called), dialog
            n_named += len(called)
    assert n_named > N_GROUPS


def dialog(*messages: dict, scenario: str = "single_tool") -> dict:
    return {"scenario": scenario, "messages": list(messages)}


def call(arguments: dict, **more) -> dict:
    calls = [{"type": "function", "function": {"name": "get_weather", "arguments": arguments}}]
    return {"role": "assistant", "content": "", "tool_calls": calls, **more}


def test_a_masked_mistake_is_in_the_ids_and_is_no_target(write, tokenizer):
    made = dialog(
        {"role": "user", "content": "Weather in Praag?"},
        call({"city": "Praag"}, train=False),
        {"role": "tool", "content": "unknown city, did you mean Prague?"},
        call({"city": "Prague"}),
    )
    (pack,) = read_packs(
        write([{"system": "", "tools": [WEATHER], "dialogs": [made]}]), tokenizer, max_tokens=900
    )
    (branch,) = pack.branches
    learned = tokenizer.decode(
        [i for i, is_target in zip(branch.ids, branch.is_target, strict=True) if is_target],
        skip_special_tokens=False,
    )
    assert learned.count("<|im_end|>") == 1
    assert "Prague" in learned
    assert "Praag" not in learned
    assert tokenizer.decode(branch.ids).count("Praag") == 2


def test_branches_that_do_not_fit_are_left_out_and_a_group_without_any_is_no_pack(write, tokenizer):
    short = dialog({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"})
    long = dialog({"role": "user", "content": "word " * 400}, {"role": "assistant", "content": "Long."})
    path = write(
        [
            {"system": "", "tools": [WEATHER], "dialogs": [short, long, short]},
            {"system": "", "tools": [WEATHER], "dialogs": [long]},
        ]
    )
    (pack,) = read_packs(path, tokenizer, max_tokens=300)
    assert len(pack.branches) == 2
    assert pack.n_tokens <= 300
    assert pack.n_tokens == len(pack.prefix) + 2 * len(pack.branches[0].ids)


def test_a_group_without_system_text_and_tools_has_no_beginning(write, tokenizer):
    short = dialog({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"})
    (pack,) = read_packs(write([{"system": "", "tools": [], "dialogs": [short]}]), tokenizer, max_tokens=300)
    assert pack.prefix == ()
    assert tokenizer.decode(pack.branches[0].ids, skip_special_tokens=False) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>"
    )
