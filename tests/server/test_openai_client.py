"""The `openai` package against a running server: what its users write, and what they get."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from pydantic import BaseModel

from edge.server.options import ServerOptions
from edge.types import CallOpened, CallWithdrawn, PrefillProgress, ReasoningDelta, Reply
from tests.server.fake_engine import TIMINGS, USAGE, calling, logprob, saying

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}


def test_a_chat_gives_text_usage_and_timings(serve):
    client = serve(saying("Hel", "lo"), options=ServerOptions(model_id="tiny")).openai()
    answer = client.chat.completions.create(model="whatever", messages=ASK)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        "Hello",
        "stop",
    )
    assert choice.message.tool_calls is None
    assert answer.model == "tiny"
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage.prompt_tokens == 12
    assert answer.usage.total_tokens == 17
    assert answer.usage.prompt_tokens_details.cached_tokens == 7
    assert answer.timings["cache_n"] == 7
    assert answer.timings["predicted_per_second"] == pytest.approx(50)
    assert answer.timings["prompt_per_second"] == pytest.approx(25)  # 12 - 7 tokens in 0.2 s
    assert answer._request_id.startswith("req_")


def test_calls_have_json_arguments_and_ids_of_their_own(serve):
    client = serve(calling(("get_weather", {"city": "Köln"}), ("get_time", {}))).openai()
    one, two = (
        client.chat.completions.create(model="m", messages=ASK, tools=[WEATHER, TIME]) for _ in range(2)
    )
    assert one.choices[0].finish_reason == "tool_calls"
    assert one.choices[0].message.content is None
    calls = one.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert calls[0].function.arguments == '{"city": "Köln"}'
    ids = {call.id for answer in (one, two) for call in answer.choices[0].message.tool_calls}
    assert len(ids) == 4


def test_half_a_surrogate_pair_in_an_argument_stays_json(serve):
    client = serve(calling(("get_weather", {"city": "\ud83d"}))).openai()
    answer = client.chat.completions.create(model="m", messages=ASK, tools=[WEATHER])
    arguments = answer.choices[0].message.tool_calls[0].function.arguments
    assert json.loads(arguments) == {"city": "\ud83d"}
    arguments.encode()


def test_the_request_reaches_the_engine_as_it_was_meant(serve):
    server = serve(calling(("get_weather", {"city": "Paris"})))
    server.openai().chat.completions.create(
        model="m",
        messages=ASK,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        parallel_tool_calls=False,
        max_tokens=5,
        max_completion_tokens=77,
        temperature=0.5,
        top_p=0.9,
        seed=-1,
        stop="END",
        reasoning_effort="none",
        extra_body={"top_k": 3, "min_p": 0.0, "deadline_s": 9},
    )
    (request,) = server.engine.requests
    assert request.tool_choice == "get_weather"
    assert request.parallel_tool_calls is False
    assert request.max_tokens == 77
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.top_k) == (0.5, 0.9, 3)
    assert request.sampling.min_p == 0.0
    assert 0 <= request.sampling.seed < 0xFFFFFFFF
    assert request.stop == ("END",)
    assert request.enable_thinking is False
    assert server.engine.deadlines == [9]


def test_what_is_not_said_is_the_engines_or_the_servers_default(serve):
    server = serve(saying("x"), options=ServerOptions(max_tokens=33, deadline_s=44))
    server.openai().chat.completions.create(model="m", messages=ASK)
    (request,) = server.engine.requests
    assert (request.max_tokens, request.tool_choice, request.parallel_tool_calls) == (33, "auto", True)
    assert request.sampling.temperature is None
    assert request.sampling.seed is None
    assert request.enable_thinking is None
    assert server.engine.deadlines == [44]


def test_a_request_cannot_ask_for_more_time_than_the_server_gives(serve):
    server = serve(saying("x"), options=ServerOptions(deadline_s=5))
    server.openai().chat.completions.create(model="m", messages=ASK, extra_body={"deadline_s": 1e6})
    assert server.engine.deadlines == [5]


def test_parts_calls_and_tool_results_in_the_history_are_taken(serve):
    server = serve(saying("18 degrees"))
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "P"}'}}
    history = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Weather "}, {"type": "text", "text": "in P?"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "18"},
    ]
    server.openai().chat.completions.create(model="m", messages=history, tools=[WEATHER])
    sent = server.engine.requests[0].messages
    assert sent[1]["content"][1]["text"] == "in P?"
    assert sent[2]["tool_calls"][0]["function"]["arguments"] == '{"city": "P"}'
    assert (sent[3]["tool_call_id"], sent[3]["content"]) == ("c1", "18")


def test_an_answer_can_be_sent_back_as_it_came(serve):
    server = serve(calling(("get_weather", {"city": "Paris"})))
    client = server.openai()
    first = client.chat.completions.create(model="m", messages=ASK, tools=[WEATHER]).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "18"}
    client.chat.completions.create(model="m", messages=[*ASK, first, result], tools=[WEATHER])
    assert server.engine.requests[1].messages[1]["tool_calls"][0]["id"] == first.tool_calls[0].id


def test_a_stream_has_the_role_first_then_pieces_then_the_reason(serve):
    client = serve(saying("Hel", "lo")).openai()
    chunks = list(client.chat.completions.create(model="m", messages=ASK, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Hel", "lo", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_the_usage_where_that_is_wanted(serve):
    client = serve(saying("Hello")).openai()
    *pieces, last = client.chat.completions.create(
        model="m", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    assert last.choices == []
    assert last.usage.total_tokens == 17
    assert last.timings["predicted_n"] == 5
    assert all(piece.usage is None for piece in pieces)


def test_a_streamed_call_comes_whole_and_a_withdrawn_one_not_at_all(serve):
    *events, reply = calling(("get_weather", {"city": "Paris"}), ("get_time", {}))
    client = serve([*events, CallOpened(), CallWithdrawn(), reply]).openai()
    chunks = list(client.chat.completions.create(model="m", messages=ASK, tools=[WEATHER, TIME], stream=True))
    deltas = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert [len(delta) for delta in deltas] == [1, 1]
    assert [delta[0].index for delta in deltas] == [0, 1]
    assert json.loads(deltas[0][0].function.arguments) == {"city": "Paris"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_thinking_is_reasoning_content(serve):
    reply = Reply("Yes.", "Hmm.", (), "stop", usage=USAGE, timings=TIMINGS)
    server = serve([ReasoningDelta("Hmm."), *saying("Yes.")[:-1], reply])
    client = server.openai()
    message = client.chat.completions.create(model="m", messages=ASK).choices[0].message
    assert (message.reasoning_content, message.content) == ("Hmm.", "Yes.")
    deltas = [
        c.choices[0].delta for c in client.chat.completions.create(model="m", messages=ASK, stream=True)
    ]
    assert [getattr(delta, "reasoning_content", None) for delta in deltas] == [None, "Hmm.", None, None]


def test_log_probabilities_whole_and_streamed(serve):
    given = [logprob("Hi", top=[logprob("Hi"), logprob("Ho", float("-inf"))]), logprob("!")]
    client = serve(saying("Hi", "!", logprobs=given)).openai()
    ask = {"model": "m", "messages": ASK, "logprobs": True, "top_logprobs": 2}
    content = client.chat.completions.create(**ask).choices[0].logprobs.content
    assert [(token.token, token.logprob, token.bytes) for token in content][1] == ("!", -0.5, [33])
    assert [(top.token, top.logprob) for top in content[0].top_logprobs] == [("Hi", -0.5), ("Ho", -9999.0)]
    chunks = list(client.chat.completions.create(**ask, stream=True))
    streamed = [t.token for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert streamed == ["Hi", "!"]


def test_several_answers_count_the_prompt_once_and_draw_differently(serve):
    server = serve(saying("x"), n_parallel=2)
    answer = server.openai().chat.completions.create(model="m", messages=ASK, n=3, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 15)
    assert sorted(request.sampling.seed for request in server.engine.requests) == [5, 6, 7]


def test_several_streamed_answers_are_told_apart_by_their_index(serve):
    texts = iter(["a", "b"])
    client = serve(lambda request: saying(next(texts), "!"), n_parallel=2).openai()
    said = {0: "", 1: ""}
    for chunk in client.chat.completions.create(model="m", messages=ASK, n=2, stream=True):
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert sorted(said.values()) == ["a!", "b!"]


class City(BaseModel):
    name: str
    population: int


def test_the_parse_helper_gets_its_model_back(serve):
    server = serve(saying('{"name": "Paris", ', '"population": 2100000}'))
    parsed = server.openai().chat.completions.parse(model="m", messages=ASK, response_format=City)
    assert parsed.choices[0].message.parsed == City(name="Paris", population=2_100_000)
    schema = server.engine.requests[0].response_format["json_schema"]["schema"]
    assert set(schema["required"]) == {"name", "population"}


def test_the_parse_helper_gets_its_tool_arguments_back(serve):
    client = serve(calling(("City", {"name": "Paris", "population": 1}))).openai()
    tool = openai.pydantic_function_tool(City)
    parsed = client.chat.completions.parse(model="m", messages=ASK, tools=[tool], tool_choice="required")
    assert parsed.choices[0].message.tool_calls[0].function.parsed_arguments == City(
        name="Paris", population=1
    )


def test_the_stream_helper_puts_a_stream_together(serve):
    *events, reply = calling(("City", {"name": "Paris", "population": 1}), content="Well")
    client = serve([PrefillProgress(1, 2), *events, reply]).openai()
    with client.chat.completions.stream(
        model="m", messages=ASK, tools=[openai.pydantic_function_tool(City)]
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].message.content == "Well"
    assert final.choices[0].message.tool_calls[0].function.parsed_arguments.name == "Paris"


def test_the_asynchronous_client_gets_many_answers_at_once(serve):
    server = serve(saying("Hel", "lo"), n_parallel=4, max_queue=20)

    async def ask(client, stream):
        answer = await client.chat.completions.create(model="m", messages=ASK, stream=stream)
        if not stream:
            return answer.choices[0].message.content
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

    async def main():
        async with server.async_openai() as client:
            return await asyncio.gather(*(ask(client, i % 2 == 1) for i in range(12)))

    assert asyncio.run(main()) == ["Hello"] * 12


def test_plain_completions_whole_streamed_and_with_log_probabilities(serve):
    server = serve(saying("Hi", "!", logprobs=[logprob("Hi", top=[logprob("Ho", -2.0)]), logprob("!")]))
    client = server.openai()
    answer = client.completions.create(model="m", prompt="Say", logprobs=1, echo=True, max_tokens=3)
    choice = answer.choices[0]
    assert (answer.object, choice.text, choice.finish_reason) == ("text_completion", "SayHi!", "stop")
    assert choice.logprobs.tokens == ["Hi", "!"]
    assert choice.logprobs.text_offset == [3, 5]
    assert choice.logprobs.top_logprobs[0] == {"Ho": -2.0}
    chunks = list(client.completions.create(model="m", prompt="Say", stream=True))
    assert [chunk.choices[0].text for chunk in chunks] == ["Hi", "!", ""]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert server.engine.requests[0].prompt == "Say"
    assert (server.engine.requests[0].max_tokens, server.engine.requests[1].max_tokens) == (3, 16)


def test_several_prompts_and_prompts_of_tokens(serve):
    server = serve(saying("x"))
    client = server.openai()
    answer = client.completions.create(model="m", prompt=["a", "b"])
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage.prompt_tokens == 24
    client.completions.create(model="m", prompt=[1, 2, 3])
    client.completions.create(model="m", prompt=[[1], [2]])
    assert [request.prompt for request in server.engine.requests] == ["a", "b", [1, 2, 3], [1], [2]]


def test_the_model_is_listed_by_its_name_and_without_its_path(serve):
    server = serve(options=ServerOptions(model_id="org/model:q4_k_m"))
    client = server.openai()
    (model,) = client.models.list()
    assert (model.id, model.object, model.owned_by) == ("org/model:q4_k_m", "model", "smoltools-edge")
    assert model.meta == {"architecture": "llama", "quantization": "Q8_0", "n_ctx": 2048}
    assert client.models.retrieve("org/model:q4_k_m").id == model.id
    assert "secret" not in server.http().get("/v1/models").text
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-4o")
    assert error.value.code == "model_not_found"


def test_only_allowed_tools_are_offered(serve):
    server = serve(calling(("get_time", {})))
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]}
    server.openai().chat.completions.create(
        model="m",
        messages=ASK,
        tools=[WEATHER, TIME],
        tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
    )
    (request,) = server.engine.requests
    assert [tool["function"]["name"] for tool in request.tools] == ["get_time"]
    assert request.tool_choice == "required"
