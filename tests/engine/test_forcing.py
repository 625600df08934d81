"""Forced text on a real vocabulary: same calls, fewer samplings, tokens as the whole text would have."""

from __future__ import annotations

import pytest

from edge.engine.request import ChatRequest
from edge.engine.sampling import SamplingOptions
from edge.types import Tool

pytestmark = pytest.mark.model

WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)
CITY = Tool(
    "look_up_city",
    {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
GREET = Tool(
    "get_greeting",
    {
        "type": "object",
        "properties": {"naïve": {"const": "é€"}},
        "required": ["naïve"],
        "additionalProperties": False,
    },
)


def ask(engine, question, tools, **options):
    request = ChatRequest(
        messages=[{"role": "user", "content": question}],
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
        sampling=SamplingOptions(temperature=0.0),
        **{"max_tokens": 120, **options},
    )
    return engine.chat(request)


@pytest.mark.parametrize("tool", [WEATHER, CITY], ids=lambda tool: tool.name)
def test_greedy_calls_are_the_same_with_forcing_on_and_off(demo_engine, tool):
    question = "What is the weather in Paris, in celsius?"
    forced = ask(demo_engine, question, [tool])
    plain = ask(demo_engine, question, [tool], force_text=False)
    assert forced.tool_calls[0].arguments == plain.tool_calls[0].arguments
    assert plain.usage.forced_tokens == 5  # the opener
    assert forced.usage.forced_tokens > forced.usage.completion_tokens / 2


def test_forced_tokens_are_those_of_the_whole_text(demo_engine):
    vocab = demo_engine.model.vocab
    reply = ask(demo_engine, "Greet me.", [GREET])
    assert demo_engine.last_generation is not None
    tokens = demo_engine.last_generation.tokens
    assert reply.usage.forced_tokens == len(tokens)
    assert tokens == vocab.tokenize(vocab.text(tokens), parse_special=False)


def test_the_name_is_forced_as_far_as_the_tools_agree(demo_engine):
    tools = [
        Tool(f"get_{n}", {"type": "object", "properties": {}, "additionalProperties": False})
        for n in ("a1", "b2")
    ]
    reply = ask(demo_engine, "Go.", tools)
    # All but the token that tells the two apart, and the one before it, which it might have been part of.
    assert reply.usage.completion_tokens - reply.usage.forced_tokens <= 3


def test_a_run_of_forced_text_stops_at_the_budget(demo_engine):
    reply = ask(demo_engine, "Weather in Rome", [WEATHER], max_tokens=36)
    assert reply.usage.completion_tokens <= 36
