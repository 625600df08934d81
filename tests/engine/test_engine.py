"""One answer on tiny models with random weights: whatever they want to say, what leaves is right."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from edge.chat.template import ChatTemplate
from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.engine.generation import Generation
from edge.engine.request import ChatRequest
from edge.engine.sampling import SamplerChain, SamplingOptions
from edge.errors import ContextOverflow, RequestError, TemplateError, ToolsError
from edge.types import (
    CallOpened,
    CallWithdrawn,
    ContentDelta,
    ContentWasReasoning,
    LateCheckNote,
    ReasoningDelta,
    Reply,
    Tool,
    ToolCall,
)
from tests.engine.conftest import SHORT
from tests.tiny_gguf import TinyShape, write_gguf

pytestmark = pytest.mark.model

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "boolean"}},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER = Tool("get_weather", SCHEMA)
PING = Tool("ping", {"type": "object", "properties": {}, "additionalProperties": False})
NOTHING_ELSE = {"required": ["n"], "additionalProperties": False}
GET = Tool("get", {"type": "object", "properties": {"n": {"type": "null"}}, **NOTHING_ELSE})
USER = [{"role": "user", "content": "hello"}]


def ask(engine, text="hello", **options):
    sampling = SamplingOptions(temperature=options.pop("temperature", 1.5), seed=options.pop("seed", 1))
    return engine.chat(
        ChatRequest(messages=[{"role": "user", "content": text}], sampling=sampling, **options)
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_required_call_is_valid_or_withdrawn(tiny_engine, seed):
    reply = ask(
        tiny_engine,
        tools=[WEATHER, PING, GET],
        tool_choice="required",
        seed=seed,
        temperature=2.0,
        max_tokens=160,
    )
    assert reply.malformed_calls == ()
    for call in reply.tool_calls:
        schema = {"get_weather": SCHEMA, "ping": PING.parameters, "get": GET.parameters}[call.name]
        jsonschema.validate(call.arguments, schema)
    assert reply.tool_calls or reply.finish_reason == "length"


def test_required_calls_do_happen_and_are_not_all_withdrawn(tiny_engine):
    options = {"tools": [PING, GET], "tool_choice": "required", "max_tokens": 80}
    replies = [ask(tiny_engine, seed=seed, **options) for seed in range(6)]
    assert all(reply.tool_calls for reply in replies)
    assert {call.name for reply in replies for call in reply.tool_calls} <= {"ping", "get"}


@pytest.mark.parametrize("name", ["ping", "get"])
def test_a_named_tool_is_really_the_one_called_and_called_once(tiny_engine, name):
    reply = ask(tiny_engine, tools=[WEATHER, PING, GET], tool_choice=name, max_tokens=80)
    assert [call.name for call in reply.tool_calls] == [name]
    assert reply.finish_reason == "tool_calls"
    assert reply.content == ""


def test_an_answer_that_was_required_to_call_holds_nothing_but_calls(tiny_engine):
    for seed in range(6):
        reply = ask(tiny_engine, tools=[PING, GET], tool_choice="required", seed=seed, max_tokens=300)
        assert reply.content == ""
        assert reply.tool_calls
        assert reply.finish_reason == "tool_calls"


def test_a_revealed_tool_can_be_called_and_is_not_in_the_prompt(tiny_engine):
    shown = ask(tiny_engine, tools=[GET], tool_choice="none", max_tokens=1)
    reply = ask(tiny_engine, tools=[GET], revealed_tools=[PING], tool_choice="ping")
    assert [call.name for call in reply.tool_calls] == ["ping"]
    assert reply.usage.prompt_tokens == shown.usage.prompt_tokens


def test_a_revealed_tool_has_a_name_of_its_own(tiny_engine):
    with pytest.raises(ToolsError, match="names must differ"):
        ask(tiny_engine, tools=[PING], revealed_tools=[PING])


def test_openai_s_object_form_of_tool_choice_is_the_name(tiny_engine):
    choice = {"type": "function", "function": {"name": "ping"}}
    assert ask(tiny_engine, tools=[WEATHER, PING], tool_choice=choice).tool_calls[0].name == "ping"


@pytest.mark.parametrize("max_tokens", [73, 75, 80, 90])
def test_a_call_that_does_not_fit_is_withdrawn_whole(tiny_engine, max_tokens):
    events = list(
        tiny_engine.stream(
            ChatRequest(messages=USER, tools=[WEATHER], tool_choice="required", max_tokens=max_tokens)
        )
    )
    reply = events[-1]
    assert isinstance(reply, Reply)
    assert events[0] == CallOpened()
    assert CallWithdrawn() in events
    assert not any(isinstance(event, (ToolCall, ContentDelta)) for event in events)
    assert (reply.tool_calls, reply.content, reply.finish_reason) == ((), "", "length")
    assert reply.usage.completion_tokens <= max_tokens


def test_a_call_that_does_not_fit_the_context_is_withdrawn(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", TinyShape(n_ctx=96))
    with Engine(path, chat_template=SHORT, context=ContextOptions(n_threads=1)) as engine:
        reply = ask(engine, tools=[WEATHER], tool_choice="required", max_tokens=500)
        assert (reply.tool_calls, reply.finish_reason) == ((), "length")
        assert reply.usage.prompt_tokens + reply.usage.completion_tokens <= 96


def test_a_call_is_given_up_as_soon_as_its_shortest_end_no_longer_fits(tiny_engine):
    written = ask(tiny_engine, tools=[WEATHER], tool_choice="required", temperature=0.0, max_tokens=100)
    assert written.finish_reason == "length"
    # The closing quote, brackets and tag, at the least, had no room any more.
    assert written.usage.completion_tokens < 100


@pytest.mark.parametrize("max_tokens", [10, 60])
def test_a_call_is_not_opened_when_the_shortest_no_longer_fits(tiny_engine, max_tokens):
    prompt = "<tool_call>" * 20  # a model that repeats itself would now open one
    for seed in range(5):
        reply = ask(tiny_engine, prompt, tools=[WEATHER], seed=seed, max_tokens=max_tokens)
        assert reply.usage.completion_tokens <= max_tokens
        assert "<tool_call>" not in tiny_engine.model.vocab.text(tiny_engine.last_generation.tokens)


def test_text_that_must_come_is_not_sampled(tiny_engine):
    options = {"tools": [GET], "tool_choice": "get", "max_tokens": 80}
    forced = ask(tiny_engine, **options)
    assert forced.tool_calls == ask(tiny_engine, force_text=False, **options).tool_calls
    # All of this call is forced: the opener, and every run of text but for the token before a choice.
    assert forced.usage.forced_tokens == forced.usage.completion_tokens
    assert ask(tiny_engine, force_text=False, **options).usage.forced_tokens == 1


@pytest.mark.parametrize("temperature", [0.0, 0.1])
@pytest.mark.parametrize(("p_call", "calls"), [(0.45, False), (0.55, True)])
def test_a_low_temperature_calls_only_where_a_call_is_likelier_than_all_texts_together(
    tiny_engine, monkeypatch, p_call, calls, temperature
):
    vocab = tiny_engine.model.vocab
    opener = vocab.tokenize("<tool_call>")[0]
    p_text = (1 - p_call) / 5
    logits = np.full(vocab.n_tokens, -40.0, dtype=np.float32)
    logits[opener] = np.log(p_call)
    logits[[vocab.tokenize(letter)[0] for letter in "abcde"]] = np.log(p_text)
    assert p_text < p_call  # token against token, the call wins

    monkeypatch.setattr(SamplerChain, "logits", lambda self, slot: logits)
    monkeypatch.setattr(SamplerChain, "sample", lambda self, slot: opener)
    monkeypatch.setattr(Generation, "_may_open", lambda self, n_opener_bytes: True)
    ask(tiny_engine, tools=[PING], max_tokens=1, temperature=temperature)
    assert (tiny_engine.last_generation.tokens == [opener]) is calls
    ask(tiny_engine, tools=[PING], max_tokens=1, temperature=1.0)
    assert tiny_engine.last_generation.tokens == [opener]  # drawn: it stays


@pytest.mark.parametrize("tools", [[GET, PING], [WEATHER, GET, PING]])
def test_with_parallel_calls_off_there_is_one_call(tiny_engine, tools):
    options = {"tools": tools, "tool_choice": "required", "max_tokens": 900, "temperature": 0.0}
    assert len(ask(tiny_engine, parallel_tool_calls=False, **options).tool_calls) <= 1


def test_what_the_grammar_cannot_say_is_refused_while_it_is_written(tiny_engine):
    letters = {"type": "array", "items": {"enum": ["x", "y", "z"]}, "uniqueItems": True, "minItems": 3}
    pick = Tool(
        "pick",
        {"type": "object", "properties": {"a": letters}, "required": ["a"], "additionalProperties": False},
    )
    # A comma behind the third letter is a dead end, found only when nothing can follow it: the model has to go back.
    for seed in range(8):
        reply = ask(tiny_engine, tools=[pick], tool_choice="pick", seed=seed, max_tokens=200)
        assert sorted(reply.tool_calls[0].arguments["a"]) == ["x", "y", "z"]
        assert reply.late_checks == (LateCheckNote("pick", "/properties/a", "uniqueItems"),)


def test_arguments_that_nobody_declared_are_not_written(tiny_engine):
    silent = Tool("silent", {"type": "object", "properties": {"n": {"type": "null"}}})
    for seed in range(4):
        reply = ask(tiny_engine, tools=[silent], tool_choice="silent", seed=seed, max_tokens=200)
        assert reply.tool_calls[0].arguments in ({}, {"n": None})


def test_a_schema_that_asks_for_more_than_it_names_can_still_be_called(tiny_engine):
    more = Tool("more", {"type": "object", "properties": {"n": {"type": "null"}}, "minProperties": 2})
    reply = ask(tiny_engine, tools=[more], tool_choice="more", temperature=0.0, max_tokens=600)
    assert all(len(call.arguments) >= 2 for call in reply.tool_calls)


def test_calls_of_one_answer_are_bounded(tiny_engine):
    repeat = Tool("go", {"type": "object", "properties": {}, "additionalProperties": False})
    prompt = "<tool_call>" * 30
    replies = [ask(tiny_engine, prompt, tools=[repeat], seed=s, max_tokens=990) for s in range(3)]
    assert all(len(reply.tool_calls) <= 16 for reply in replies)


@pytest.mark.parametrize("tools", [[], [PING]])
def test_no_call_is_opened_where_none_may_be_made(tiny_engine, tools):
    prompt = "<tool_call>" * 20  # a model that repeats itself would now open one
    for seed in range(5):
        reply = ask(tiny_engine, prompt, tools=tools, tool_choice="none", seed=seed, max_tokens=120)
        assert reply.tool_calls == ()
        assert "<tool_call>" not in reply.content


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(tiny_engine):
    first, again, other = (ask(tiny_engine, seed=s, max_tokens=40) for s in (5, 5, 6))
    assert first.content == again.content
    assert first.content != other.content


def test_a_random_seed_is_not_always_the_same(tiny_engine):
    texts = {
        tiny_engine.chat(
            ChatRequest(messages=USER, sampling=SamplingOptions(temperature=1.5, seed=None), max_tokens=30)
        ).content
        for _ in range(4)
    }
    assert len(texts) > 1


def test_greedy_does_not_depend_on_the_prefix_that_was_kept(tiny_engine):
    fresh = ask(tiny_engine, "one two three", temperature=0.0, max_tokens=20)
    ask(tiny_engine, "one two four", temperature=0.0, max_tokens=20)
    kept = ask(tiny_engine, "one two three", temperature=0.0, max_tokens=20)
    assert kept.content == fresh.content
    if not tiny_engine.model.is_hybrid:
        assert kept.usage.cached_tokens > 0


def test_a_prompt_that_extends_the_last_answer_is_not_prefilled_again(tiny_engine):
    first = ask(tiny_engine, "abc", temperature=0.0, max_tokens=1)
    again = ask(tiny_engine, "abc\nmore", temperature=0.0, max_tokens=1)
    assert again.usage.cached_tokens == first.usage.prompt_tokens


def test_without_the_cache_a_prompt_is_prefilled_again(tiny_engine):
    request = ChatRequest(
        messages=[{"role": "user", "content": "abc"}],
        sampling=SamplingOptions(temperature=0.0),
        max_tokens=1,
        cache_prompt=False,
    )
    tiny_engine.chat(request)
    again = tiny_engine.chat(request)
    assert again.usage.cached_tokens == 0
    assert again.usage.prompt_tokens > 0


def test_streamed_text_joins_to_the_reply(tiny_engine):
    request = ChatRequest(messages=USER, sampling=SamplingOptions(temperature=1.0, seed=3), max_tokens=60)
    content = reasoning = ""
    for event in tiny_engine.stream(request):
        match event:
            case ContentDelta(text):
                content += text
            case ReasoningDelta(text):
                reasoning += text
            case ContentWasReasoning():
                content, reasoning = "", reasoning + content
    assert isinstance(event, Reply)
    assert (content, reasoning) == (event.content, event.reasoning)
    assert content + reasoning


def test_a_stream_that_is_left_does_not_spoil_the_next(tiny_engine):
    expected = ask(tiny_engine, "after", temperature=0.0, max_tokens=20).content
    left = tiny_engine.stream(ChatRequest(messages=USER, tools=[PING], tool_choice="required"))
    next(left)
    assert ask(tiny_engine, "after", temperature=0.0, max_tokens=20).content == expected
    assert isinstance(list(left)[-1], Reply)


def test_an_interrupt_between_a_decode_and_its_note_does_not_spoil_the_next_answer(tiny_engine):
    expected = ask(tiny_engine, "after", temperature=0.0, max_tokens=20).content
    ask(tiny_engine, "before", temperature=0.0, max_tokens=5)
    tiny_engine.context.slots[0].tokens.pop()
    assert ask(tiny_engine, "before", temperature=0.0, max_tokens=5).usage.completion_tokens > 0
    tiny_engine.context.slots[0].tokens.pop()
    assert ask(tiny_engine, "after", temperature=0.0, max_tokens=20).content == expected


def test_a_stop_string_ends_the_answer_before_it(tiny_engine):
    text = ask(tiny_engine, temperature=0.0, max_tokens=40).content
    stop = text[5:7]
    reply = ask(tiny_engine, temperature=0.0, max_tokens=40, stop=[stop])
    assert reply.content == text[: text.index(stop)].rstrip()
    assert reply.finish_reason == "stop"


def test_the_prompt_is_normalised_to_nfc(tiny_engine):
    vocab = tiny_engine.model.vocab
    assert vocab.tokenize("e\N{COMBINING ACUTE ACCENT}") == vocab.tokenize("é")


def test_a_character_split_over_tokens_is_put_together(tiny_engine):
    vocab = tiny_engine.model.vocab
    tokens = vocab.tokenize("né €𝄞")
    assert len(tokens) == len("né €𝄞".encode())  # this vocabulary has one token a byte
    assert vocab.text(tokens) == "né €𝄞"


def test_without_the_grammar_broken_calls_are_reported_and_not_handed_out(tiny_engine):
    reply = ask(tiny_engine, tools=[WEATHER], tool_choice="required", grammar=False, max_tokens=100)
    assert reply.tool_calls == ()


@pytest.mark.parametrize(
    ("options", "error", "found"),
    [
        ({"max_tokens": 0}, RequestError, "max_tokens is 0; at least 1 is needed"),
        ({"max_tokens": -3}, RequestError, "max_tokens is -3"),
        ({"tool_choice": "required"}, RequestError, "tool_choice is 'required', but no tools are given"),
        (
            {"tool_choice": "gte", "tools": [GET]},
            RequestError,
            "allowed are auto, none, required, or one of: get",
        ),
        ({"tool_choice": {"type": "function"}, "tools": [GET]}, RequestError, "without function.name"),
        (
            {"tool_choice": "required", "tools": [GET], "max_tokens": 1},
            RequestError,
            "max_tokens is 1; the shortest call takes 45",
        ),
        ({"tools": [{"type": "function"}]}, ToolsError, "0"),
        ({"tools": [PING, PING]}, ToolsError, "ping"),
        ({"stop": [""]}, RequestError, "a stop string is ''"),
        ({"text": "x" * 5000}, ContextOverflow, "the prompt has 5000 tokens"),
        ({"text": "\ud800"}, RequestError, "U+D800, half of a surrogate pair"),
    ],
)
def test_a_bad_request_is_one_line_and_the_engine_goes_on(tiny_engine, options, error, found):
    with pytest.raises(error) as caught:
        ask(tiny_engine, **options)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ask(tiny_engine, max_tokens=3).usage.completion_tokens <= 3


def test_an_overflow_says_both_numbers(tiny_engine):
    with pytest.raises(ContextOverflow) as caught:
        ask(tiny_engine, "x" * 2000)
    assert (caught.value.n_prompt_tokens, caught.value.n_ctx) == (2000, 1024)


def test_thinking_that_the_template_opens_is_reasoning_and_calls_in_it_open_nothing(tmp_path):
    path = write_gguf(tmp_path / "m.gguf")
    template = ChatTemplate("{# tools <tool_call> #}{{ messages[-1].content }}<think>\n", "test")
    with Engine(path, chat_template=template, context=ContextOptions(n_threads=1)) as engine:
        reply = ask(engine, "<tool_call>" * 9, tools=[PING], max_tokens=30, temperature=0.0)
        assert reply.content == ""
        assert reply.reasoning
        forced = ask(engine, tools=[PING], tool_choice="required", max_tokens=60)
        assert forced.tool_calls[0].name == "ping"


def test_a_template_without_tools_refuses_them(tmp_path):
    path = write_gguf(tmp_path / "m.gguf")
    with Engine(path, chat_template=ChatTemplate("{{ messages[0].content }}", "mine")) as engine:
        with pytest.raises(TemplateError, match=r"the chat template \(mine\) has no place for tools"):
            ask(engine, tools=[PING])
        assert ask(engine, max_tokens=5).content is not None


def test_a_chatml_model_without_a_tool_template_gets_the_built_in_one(tmp_path):
    with Engine(write_gguf(tmp_path / "m.gguf")) as engine:
        assert engine.facts["chat_template"] == "built-in hermes"


def test_a_file_s_own_hermes_template_is_used(tmp_path):
    own = {"tokenizer.chat_template": "{{ tools }}<tool_call>{{ messages[0].content }}"}
    with Engine(write_gguf(tmp_path / "m.gguf", change=own)) as engine:
        assert engine.facts["chat_template"] == "the model file's own"


def test_a_closed_engine_can_be_closed_again(tmp_path):
    engine = Engine(write_gguf(tmp_path / "m.gguf"))
    engine.close()
    engine.close()


def test_the_call_text_is_the_trained_form(tiny_engine):
    ask(tiny_engine, tools=[GET, PING], tool_choice="get", max_tokens=60)
    text = tiny_engine.model.vocab.text(tiny_engine.last_generation.tokens)
    call = text[text.index("<tool_call>") :]
    body = call.removeprefix("<tool_call>\n")
    assert body.startswith('{"name": "get", "arguments": {"n": null')
    assert json.loads(body[: body.rindex("}") + 1])
