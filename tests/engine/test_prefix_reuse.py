"""What of a prompt is not computed again: turns of a conversation, tools shared by many, what was asked before."""

from __future__ import annotations

import threading

import pytest

from edge.chat.template import ChatTemplate, hermes_template
from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.engine.history import History, Turn
from edge.engine.request import ChatRequest
from edge.engine.sampling import SamplingOptions
from edge.engine.slot import n_common
from edge.types import Reply, Tool, ToolCall
from tests.engine.conftest import ARCHITECTURES

pytestmark = pytest.mark.model

NOTE = Tool(
    "note",
    {
        "type": "object",
        "properties": {"text": {"type": "string", "maxLength": 5}, "n": {"enum": [1, 2.5, None]}},
        "required": ["text", "n"],
        "additionalProperties": False,
    },
    "Keeps a note",
)
OPTIONS = ContextOptions(n_ctx=1024, n_batch=128, n_threads=1, kv_type="f32", flash_attn=False)
GREEDY = SamplingOptions(temperature=0.0)


@pytest.fixture(params=ARCHITECTURES)
def engine(request, tiny_files):
    with Engine(tiny_files[request.param], chat_template=hermes_template(), context=OPTIONS) as engine:
        yield engine


@pytest.fixture(params=ARCHITECTURES)
def four(request, tiny_files):
    options = ContextOptions(n_ctx=1024, n_batch=64, n_threads=1, kv_type="f32", flash_attn=False)
    path = tiny_files[request.param]
    with Engine(path, chat_template=hermes_template(), context=options, n_parallel=4) as engine:
        yield engine


def user(text):
    return {"role": "user", "content": text}


def assistant(reply):
    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in reply.tool_calls
    ]
    return {"role": "assistant", "content": reply.content} | ({"tool_calls": calls} if calls else {})


def chat(engine, messages, **options):
    options = {"sampling": GREEDY, "max_tokens": 20, **options}
    return engine.chat(ChatRequest(messages=messages, **options))


def n_tokens(engine, text):
    return len(engine.tokenize(text))


def new_turn(text):
    return f"<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_second_turn_computes_nothing_but_the_new_turn(engine, seed):
    # Random weights write broken UTF-8, white space at the ends and text that would be tokenized in another way.
    sampling = SamplingOptions(temperature=1.5, seed=seed)
    messages = [{"role": "system", "content": "be brief"}, user("first")]
    for turn in ("second", "third"):
        reply = chat(engine, messages, sampling=sampling, max_tokens=40)
        held = reply.usage.prompt_tokens + reply.usage.completion_tokens
        messages = [*messages, assistant(reply), user(turn)]
        following = chat(engine, messages, sampling=sampling, max_tokens=1)
        assert following.usage.cached_tokens >= held - 1  # the last token drawn was never decoded
        n_new = following.usage.prompt_tokens - following.usage.cached_tokens
        assert n_new <= n_tokens(engine, new_turn(turn)) + 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_turn_after_a_call_computes_nothing_but_the_result(engine, seed):
    messages = [user("first")]
    options = {
        "tools": [NOTE],
        "tool_choice": "note",
        "max_tokens": 300,
        "sampling": SamplingOptions(temperature=1.0, seed=seed),
    }
    reply = chat(engine, messages, **options)
    assert reply.tool_calls
    held = max(len(slot.tokens) for slot in engine.context.slots)
    n_said = reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert held > n_said - 20  # the end of the call was forced, and nothing followed that needed it
    result = {"role": "tool", "tool_call_id": reply.tool_calls[0].id, "content": "kept"}
    following = chat(engine, [*messages, assistant(reply), result], tools=[NOTE], max_tokens=1)
    assert following.usage.cached_tokens == held


def test_a_client_s_own_answer_in_the_history_is_taken_as_it_says(engine):
    reply = chat(engine, [user("first")], max_tokens=30)
    changed = chat(engine, [user("first"), {"role": "assistant", "content": "no"}, user("and")], max_tokens=1)
    expected = engine.tokenize(
        "<|im_start|>user\nfirst<|im_end|>\n<|im_start|>assistant\nno" + new_turn("and")
    )
    assert engine.last_generation.plan.prompt == expected
    assert changed.usage.cached_tokens < reply.usage.prompt_tokens + 1


def test_an_answer_cut_at_a_stop_string_is_not_continued_behind_it(engine):
    whole = chat(engine, [user("first")], max_tokens=40).content
    stop = whole[6:8]
    reply = chat(engine, [user("first")], max_tokens=40, stop=[stop])
    chat(engine, [user("first"), assistant(reply), user("x")], max_tokens=1)
    text = engine.detokenize(engine.last_generation.plan.prompt)
    assert text == f"<|im_start|>user\nfirst<|im_end|>\n<|im_start|>assistant\n{reply.content}{new_turn('x')}"


def test_a_new_conversation_keeps_the_tools_of_the_last_one(engine):
    chat(engine, [user("first")], tools=[NOTE])
    other = chat(engine, [user("what else is there")], tools=[NOTE], max_tokens=1)
    assert other.usage.prompt_tokens - other.usage.cached_tokens < 50
    assert other.usage.cached_tokens > 100


def test_the_same_request_again_computes_only_the_opening_of_the_answer(engine):
    first = chat(engine, [user("first " * 20)], max_tokens=20)
    again = chat(engine, [user("first " * 20)], max_tokens=20)
    assert again.content == first.content
    opening = n_tokens(engine, "<|im_start|>assistant\n")
    assert again.usage.prompt_tokens - again.usage.cached_tokens <= opening


def test_an_edited_question_goes_back_behind_the_tools(engine):
    messages = [user("first")]
    reply = chat(engine, messages, tools=[NOTE])
    messages += [assistant(reply), user("second")]
    chat(engine, messages, tools=[NOTE])
    messages[-1] = user("other")
    again = chat(engine, messages, tools=[NOTE], max_tokens=1)
    least = 100 if engine.model.is_hybrid else reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert again.usage.cached_tokens >= least


def test_without_the_prompt_cache_everything_is_computed(engine):
    first = chat(engine, [user("first")], tools=[NOTE])
    again = chat(engine, [user("first")], tools=[NOTE], cache_prompt=False)
    assert (again.usage.cached_tokens, again.content) == (0, first.content)


def test_answers_that_reuse_are_the_answers_that_do_not(engine):
    messages = [user("first")]
    reply = chat(engine, messages, tools=[NOTE], max_tokens=30)
    messages += [{"role": "assistant", "content": "yes"}, user("second")]
    kept = chat(engine, messages, tools=[NOTE], max_tokens=30)
    assert kept.usage.cached_tokens > 0
    fresh = chat(engine, messages, tools=[NOTE], max_tokens=30, cache_prompt=False)
    assert fresh.content == kept.content
    assert reply.usage.cached_tokens == 0


def test_requests_that_come_together_compute_their_tools_once(four):
    before = four.stats()
    replies: list[Reply] = []

    def ask(i):
        replies.append(chat(four, [user(f"question {i}")], tools=[NOTE], max_tokens=3))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    after = four.stats()
    computed = after.prompt_tokens - before.prompt_tokens - after.cached_tokens + before.cached_tokens
    n_prompt = replies[0].usage.prompt_tokens
    assert n_prompt > 150
    assert computed < n_prompt + 3 * 70
    assert sorted(r.usage.cached_tokens > 100 for r in replies) == [False, True, True, True]


def test_a_branch_leaves_the_conversation_that_it_left(four):
    long = [user("a story " * 30)]
    reply = chat(four, long, tools=[NOTE], max_tokens=30)
    for i in range(3):
        chat(four, [user(f"short {i}")], tools=[NOTE], max_tokens=3)
    following = chat(four, [*long, assistant(reply), user("on")], tools=[NOTE], max_tokens=1)
    assert following.usage.cached_tokens >= reply.usage.prompt_tokens + reply.usage.completion_tokens - 1


@pytest.mark.parametrize("architecture", ["llama", "qwen35"])
def test_what_is_kept_gives_way_to_what_is_answered(tiny_files, architecture):
    # Each fills its context nearly; what is kept must make room for all four at once.
    options = ContextOptions(n_ctx=256, n_batch=64, n_threads=1)
    with Engine(
        tiny_files[architecture], chat_template=hermes_template(), context=options, n_parallel=4
    ) as engine:
        for start in (0, 4):
            running = [
                engine.submit(
                    ChatRequest(
                        messages=[user(chr(97 + i) * 180)],
                        sampling=GREEDY,
                        max_tokens=40,
                        gbnf="root ::= [a-z] root",
                    )
                )
                for i in range(start, start + 4)
            ]
            replies = [list(r.events())[-1] for r in running]
            assert [r.usage.completion_tokens for r in replies] == [40] * 4


def test_thinking_that_the_template_drops_does_not_stay_in_the_history(tiny_files):
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    path = tiny_files["qwen35"]
    with Engine(path, chat_template=ChatTemplate(source, "test"), context=OPTIONS) as engine:
        reply = chat(engine, [user("first")], max_tokens=20)
        assert reply.reasoning
        following = chat(engine, [user("first"), assistant(reply), user("next")], max_tokens=1)
        text = engine.detokenize(engine.last_generation.plan.prompt)
        assert reply.reasoning not in text
        # From behind the first question on, where a state was kept.
        assert following.usage.cached_tokens == n_tokens(engine, "<|im_start|>user\nfirst<|im_end|>\n")


@pytest.mark.parametrize(
    ("held", "wanted", "n"),
    [([], [1], 0), ([1], [], 0), ([1, 2, 3], [1, 2, 3], 3), ([1, 2, 3], [1, 2, 4, 5], 2), ([2], [1, 2], 0)],
)
def test_the_common_beginning_is_found(held, wanted, n):
    assert n_common(held, wanted) == n
    assert n_common([7] * 999 + held, [7] * 999 + wanted) == 999 + n


def turn(messages, reply):
    return Turn(messages, "setting", "base", [1, 2], reply)


def reply(content="", *calls):
    return Reply(content, "", tuple(calls), "stop")


def test_a_turn_is_found_by_its_messages_and_its_answer():
    history = History()
    history.add(turn([user("a")], reply("one")))
    longer = turn([user("a"), {"role": "assistant", "content": "one"}, user("b")], reply("two"))
    history.add(longer)
    said = [*longer.messages, {"role": "assistant", "content": " two "}, user("c")]
    assert history.find(said, "setting") is longer
    assert history.find(said, "another setting") is None
    assert history.find(longer.messages, "setting").reply.content == "one"
    assert history.find([user("a"), {"role": "assistant", "content": "ONE"}], "setting") is None
    assert history.find([user("a")], "setting") is None


def test_a_call_with_other_arguments_is_another_answer():
    history = History()
    history.add(turn([user("a")], reply("", ToolCall("call_0", "f", {"n": 1}))))

    def said(arguments):
        call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return [user("a"), {"role": "assistant", "content": "", "tool_calls": [call]}, user("b")]

    assert history.find(said({"n": 1}), "setting") is not None
    assert history.find(said({"n": True}), "setting") is None
    assert history.find(said({"n": 2}), "setting") is None
