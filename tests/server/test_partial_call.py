"""`stream_tool_arguments`: arguments as they are written."""

from __future__ import annotations

import json

import pytest

from edge import ContextOptions, SamplingOptions, load
from edge.engine.request import ChatRequest
from edge.server.partial_call import PartialCall
from edge.types import CallOpened, CallProgress, CallWithdrawn, ToolCall
from tests.server.conftest import running_server
from tests.server.fake_engine import calling, saying

ASK = [{"role": "user", "content": "Weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TEXT = '\n{"name": "get_weather", "arguments": {"city": "a\\"}b", "x": [{}, "\\\\"]}}\n</tool'


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_the_pieces_are_the_arguments_wherever_they_are_cut(step):
    partial, pieces = PartialCall(), []
    for end in [*range(step, len(TEXT), step), len(TEXT)]:
        pieces.append(partial.feed(TEXT[:end]))
    assert partial.name == "get_weather"
    assert json.loads("".join(pieces)) == {"city": 'a"}b', "x": [{}, "\\"]}


def test_a_client_sees_the_arguments_grow(serve):
    *_, reply = calling(("get_weather", {"city": "Paris"}))
    progress = [CallProgress(TEXT[:n]) for n in (10, 30, 50, len(TEXT))]
    client = serve(
        [CallOpened(), *progress, ToolCall("call_0", "get_weather", {"city": "x"}), reply]
    ).openai()
    stream = client.chat.completions.create(
        model="m", messages=ASK, tools=[WEATHER], stream=True, extra_body={"stream_tool_arguments": True}
    )
    deltas = [d for chunk in stream for d in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].function.name == "get_weather"
    assert deltas[0].id.startswith("call_")
    assert len(deltas) >= 3
    assert {delta.index for delta in deltas} == {0}
    assert json.loads("".join(delta.function.arguments for delta in deltas))["x"] == [{}, "\\"]


def test_a_call_that_is_withdrawn_is_not_completed_and_the_next_one_has_its_own_index(serve):
    begun = [CallOpened(), CallProgress(TEXT[:50]), CallWithdrawn()]
    *events, reply = calling(("get_weather", {"city": "Paris"}))
    client = serve([*begun, *events, reply]).openai()
    stream = client.chat.completions.create(model="m", messages=ASK, tools=[WEATHER], stream=True)
    deltas = [d for chunk in stream for d in chunk.choices[0].delta.tool_calls or []]
    assert deltas[-1].index == 1
    assert json.loads(deltas[-1].function.arguments) == {"city": "Paris"}


def test_nothing_partial_is_asked_for_unless_the_client_wants_it(serve):
    server = serve(saying("x"))
    for body in (
        {"stream": True},
        {"stream_tool_arguments": True},
        {"stream": True, "stream_tool_arguments": True},
    ):
        server.http().post("/v1/chat/completions", json={"messages": ASK} | body)
    assert [request.call_progress for request in server.engine.requests] == [False, False, True]


@pytest.mark.model
def test_a_real_models_call_whole_and_in_pieces_is_the_same(demo_model_path):
    with load("demo", context=ContextOptions(n_ctx=512, n_threads=1)) as engine:
        asked = ChatRequest(
            messages=ASK, tools=[WEATHER], tool_choice="required", max_tokens=64, call_progress=True,
            sampling=SamplingOptions(temperature=0),
        )  # fmt: skip
        partial, arguments, call = PartialCall(), "", None
        for event in engine.stream(asked):
            if isinstance(event, CallProgress):
                arguments += partial.feed(event.text)
            elif isinstance(event, ToolCall):
                call = event
        assert call is not None
        assert json.loads(arguments) == call.arguments
        with running_server(engine) as server:
            body = {
                "model": "m",
                "messages": ASK,
                "tools": [WEATHER],
                "tool_choice": "required",
                "max_tokens": 64,
            }
            client = server.openai()
            whole = client.chat.completions.create(**body, temperature=0).choices[0].message.tool_calls[0]
            stream = client.chat.completions.create(
                **body, temperature=0, stream=True, extra_body={"stream_tool_arguments": True}
            )
            deltas = [d for chunk in stream for d in chunk.choices[0].delta.tool_calls or []]
    assert len(deltas) > 3
    assert "".join(delta.function.arguments for delta in deltas) == whole.function.arguments
