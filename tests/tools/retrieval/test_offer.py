"""Offering: the prompt's beginning stays, what is revealed can be called, and everything keeps within the budget."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge.chat.template import hermes_template, render_prompt
from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.engine.request import ChatRequest, plan_tools
from edge.errors import RetrievalError
from edge.tools.retrieval.index import ToolIndex
from edge.tools.retrieval.offer import OfferingEngine, ToolOffer, slimmed
from edge.types import Reply, Tool
from tests.tiny_gguf import TinyShape, write_gguf
from tests.tools.retrieval.conftest import entry

CITY = {"type": "string", "description": "The city, in English, such as Paris or New York"}
CATALOGUE = [
    entry("get_weather", "Weather of a city. Knows all cities.", city=CITY),
    entry("send_mail", "Send a mail to somebody"),
    entry("play_music", "Play some music"),
]
CLOCK = Tool("clock", {"type": "object", "properties": {}})


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def make(entries=CATALOGUE, *, budget=10_000, k=5):
    return ToolOffer(ToolIndex.in_memory(entries), len, budget, k)


def test_a_required_call_of_which_the_catalogue_has_no_tool_is_refused():
    required = ChatRequest(messages=[user("xyzzy")], tool_choice="required")
    with pytest.raises(RetrievalError, match="no tool of the catalogue fits"):
        make().apply(required)
    assert names(make().apply(replace(required, tools=[CLOCK])).tools) == ["clock"]


def names(tools):
    return [tool.name for tool in tools]


def prompt(request: ChatRequest) -> str:
    offered = [tool.tool for tool in plan_tools(request).offered]
    return render_prompt(hermes_template(), request.messages, offered).text


TALK = [
    user("weather in Oslo?"),
    assistant("It rains."),
    user("mail that to Ann"),
    assistant("Done."),
    user("music!"),
]


def test_the_first_message_s_tools_stand_in_the_system_block_and_later_ones_in_their_messages():
    offer = make()
    request = offer.apply(ChatRequest(messages=TALK, tools=[CLOCK]))
    assert names(request.tools) == ["clock", "get_weather"]
    assert names(request.revealed_tools) == ["send_mail", "play_music"]
    assert request.messages[0] == TALK[0]
    assert '"send_mail"' in str(request.messages[2]["content"])
    assert str(request.messages[2]["content"]).endswith("\n\nmail that to Ann")
    assert names(tool.tool for tool in plan_tools(request).callable) == [
        "clock",
        "get_weather",
        "send_mail",
        "play_music",
    ]


def test_each_turn_s_prompt_begins_with_the_one_before():
    offer = make()
    before = ""
    for n in (1, 3, 5):
        text = prompt(offer.apply(ChatRequest(messages=TALK[:n])))
        assert text.startswith(before)
        assert len(text) > len(before)
        before = text


def test_a_conversation_taken_up_later_gets_the_same_prompt_as_one_that_went_on():
    offer = make()
    for n in (1, 3):
        offer.apply(ChatRequest(messages=TALK[:n]))
    assert prompt(offer.apply(ChatRequest(messages=TALK))) == prompt(make().apply(ChatRequest(messages=TALK)))


def test_the_same_request_twice_is_the_same():
    offer = make()
    request = ChatRequest(messages=TALK)
    assert offer.apply(request) == offer.apply(request)


def test_the_caller_s_messages_are_not_changed():
    talk = [dict(message) for message in TALK]
    make().apply(ChatRequest(messages=talk))
    assert talk == TALK


def test_a_conversation_that_begins_anew_forgets_its_tools():
    offer = make()
    offer.apply(ChatRequest(messages=TALK))
    request = offer.apply(ChatRequest(messages=[user("music, please")]))
    assert names(request.tools) == ["play_music"]
    assert request.revealed_tools == ()


def test_a_question_that_was_taken_back_takes_its_tools_back():
    offer = make()
    offer.apply(ChatRequest(messages=TALK[:3]))
    request = offer.apply(ChatRequest(messages=[*TALK[:2], user("music!")]))
    assert (names(request.tools), names(request.revealed_tools)) == (["get_weather"], ["play_music"])


def test_without_tools_at_first_the_first_ones_revealed_come_with_the_form_of_a_call():
    offer = make()
    request = offer.apply(
        ChatRequest(messages=[user("hello"), assistant("Hi."), user("weather?"), user("a mail")])
    )
    assert request.tools == ()
    first, second = str(request.messages[2]["content"]), str(request.messages[3]["content"])
    assert '{"name": <function-name>, "arguments": <args-json-object>}' in first
    assert "<tool_call>" not in second
    assert "These functions are available now" in second


def test_what_was_said_before_helps_to_find():
    request = make(k=2).apply(
        ChatRequest(messages=[user("hi"), assistant("Shall I play music?"), user("yes, that")])
    )
    assert names(request.revealed_tools) == ["play_music"]


def test_the_budget_bounds_the_first_tools_and_all_later_ones():
    sizes = {e.id: len(json.dumps(e.tool.to_openai())) + 1 for e in CATALOGUE}
    many = [entry(f"weather_{n}", "Weather") for n in range(9)]
    request = make(many, budget=200, k=9).apply(ChatRequest(messages=[user("weather")]))
    assert 1 <= len(request.tools) < 9
    assert sum(len(json.dumps(tool.to_openai())) + 1 for tool in request.tools) <= 200
    offer = make(budget=max(sizes.values()))
    later = offer.apply(ChatRequest(messages=TALK))
    assert (names(later.tools), names(later.revealed_tools)) == (["get_weather"], ["send_mail"])


def test_a_tool_that_does_not_fit_is_given_in_short_and_called_all_the_same():
    tool = CATALOGUE[0].tool
    budget = len(json.dumps(slimmed(tool).to_openai())) + 1
    assert budget < len(json.dumps(tool.to_openai()))
    (short,) = make(budget=budget).apply(ChatRequest(messages=[user("weather")])).tools
    assert short == Tool(
        "get_weather", {"type": "object", "properties": {"city": {"type": "string"}}}, "Weather of a city"
    )
    assert make(budget=budget - 1).apply(ChatRequest(messages=[user("weather")])).tools == ()


def test_a_short_form_keeps_names_and_values_that_look_like_explanations():
    schema = {
        "type": "object",
        "description": "d",
        "properties": {
            "title": {"enum": [{"description": "x"}], "title": "T"},
            "default": {"type": "integer", "default": 1},
        },
        "required": ["title"],
        "anyOf": [{"description": "d", "required": ["default"]}],
    }
    assert slimmed(Tool("t", schema)).parameters == {
        "type": "object",
        "properties": {"title": {"enum": [{"description": "x"}]}, "default": {"type": "integer"}},
        "required": ["title"],
        "anyOf": [{"required": ["default"]}],
    }


def test_tools_that_cannot_be_held_to_their_schema_and_second_ones_of_a_name_are_left_out():
    impossible = entry("weather_map", "Weather", city={"type": "string", "pattern": "(?<=x)y"}, n={"not": {}})
    impossible = replace(
        impossible, tool=Tool("weather_map", {"$ref": "https://example.org/schema"}, "Weather weather")
    )
    twin = replace(CATALOGUE[0], id="other/get_weather")
    request = make([impossible, *CATALOGUE, twin]).apply(ChatRequest(messages=[user("weather")]))
    assert names(request.tools) == ["get_weather"]
    plan_tools(request)


def test_a_tool_of_the_request_s_own_is_not_offered_twice():
    own = Tool("get_weather", {"type": "object"})
    request = make().apply(ChatRequest(messages=[user("weather")], tools=[own]))
    assert request.tools == (own,)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(RetrievalError, match="0 tokens; at least 1"):
        make(budget=0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    path = write_gguf(tmp_path_factory.mktemp("offer") / "tiny.gguf", TinyShape(n_ctx=4096))
    with Engine(path, context=ContextOptions(n_threads=1, n_ctx=4096)) as engine:
        yield engine


@pytest.mark.model
def test_the_state_of_the_first_turn_is_used_in_the_second_and_the_revealed_tool_is_called(engine):
    bare = {"type": "object", "properties": {}, "additionalProperties": False}
    mail = replace(CATALOGUE[1], tool=Tool("send_mail", bare, "Send a mail to somebody"))
    index = ToolIndex.in_memory([CATALOGUE[0], mail])
    offer = ToolOffer(index, lambda text: len(engine.tokenize(text)), 1000)
    first = engine.chat(offer.apply(ChatRequest(messages=TALK[:1], max_tokens=4)))
    talk = [TALK[0], assistant(first.content), user("mail that to Ann")]
    second = engine.chat(offer.apply(ChatRequest(messages=talk, tool_choice="send_mail")))
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    assert [call.name for call in second.tool_calls] == ["send_mail"]


@pytest.mark.model
def test_an_engine_that_offers_narrows_down_what_it_is_given(engine):
    bare = {"type": "object", "properties": {}, "additionalProperties": False}
    entries = [replace(e, tool=Tool(e.tool.name, bare, e.tool.description)) for e in CATALOGUE]
    everything = [e.tool for e in entries]
    offer = ToolOffer(ToolIndex.in_memory(entries), len, 1000)
    request = ChatRequest(messages=[user("music!")], tools=everything, tool_choice="required")
    *_, reply = OfferingEngine(engine, offer).stream(request)
    assert isinstance(reply, Reply)
    assert {call.name for call in reply.tool_calls} == {"play_music"}
