from __future__ import annotations

import pytest

from edge.accuracy import endpoint
from edge.accuracy.cases import read_cases
from edge.accuracy.errors import EndpointError
from edge.accuracy.variants import AnswerOptions, VariantSpec, open_variant
from tests.accuracy.conftest import case_row, completion, weather, write_rows


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(endpoint.time, "sleep", lambda seconds: None)


@pytest.fixture
def case(tmp_path):
    return read_cases(write_rows(tmp_path / "c.jsonl", [case_row("a", weather("Rome"))])).cases[0]


def ask(server, case, **spec):
    values = {"name": "e", "kind": "endpoint", "location": server.url, **spec}
    with open_variant(VariantSpec(**values), AnswerOptions(max_tokens=9)) as variant:
        return variant.answer(case, grammar=True)


def test_what_is_asked_is_what_the_api_takes(serve, case):
    server = serve(lambda request: (200, completion()))
    ask(server, case, api_key="secret")
    (request,) = server.requests
    assert request["model"] == "the-model"
    assert (request["temperature"], request["max_tokens"], request["seed"]) == (0, 9, 0)
    assert request["messages"] == [{"role": "user", "content": "question a"}]
    assert request["tools"][0]["function"]["name"] == "get_weather"
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_calls_of_earlier_turns_go_as_json_strings(serve, tmp_path):
    call = {"id": "c0", "type": "function", "function": {"name": "get_time", "arguments": {"zone": "UTC"}}}
    messages = [
        {"role": "user", "content": "time?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c0", "content": "12:00"},
    ]
    row = case_row("a", messages=messages)
    server = serve(lambda request: (200, completion()))
    ask(server, read_cases(write_rows(tmp_path / "d.jsonl", [row])).cases[0])
    sent = server.requests[0]["messages"]
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == '{"zone": "UTC"}'
    assert sent[2]["tool_call_id"] == "c0"


@pytest.mark.parametrize(
    ("reply", "name", "fault"),
    [
        (completion(weather("Rome")), "get_weather", ""),
        (completion(("get_weather", {"town": "Rome"})), "get_weather", "'city' is a required property"),
        (completion(("fly", {})), "fly", "there is no tool 'fly'"),
        (completion(("get_weather", '{"city": "Ro')), "get_weather", "not JSON"),
        (completion(("get_weather", "[1]")), "get_weather", "not an object"),
        (completion(content='<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'),
         "get_weather", ""),
        (completion(content="<tool_call>\n{'name': 1}\n</tool_call>"), None, "not JSON"),
        (completion(content='so <tool_call>\n{"name": "get_w'), None, "it was not finished"),
    ],
)  # fmt: skip
def test_calls_are_judged_here(serve, case, reply, name, fault):
    (call,) = ask(serve(lambda request: (200, reply)), case).calls
    assert call.name == name
    assert fault in call.fault
    assert bool(call.fault) is bool(fault)
    assert call.is_json is (fault == "" or "required" in fault or "no tool" in fault)


def test_a_busy_server_is_asked_again(serve, case):
    replies = [(503, "loading"), (429, "later"), (200, completion(weather("Rome")))]
    server = serve(lambda request: replies.pop(0))
    assert ask(server, case).calls[0].name == "get_weather"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((401, '{"error": "no key"}'), "HTTP 401"),
        ((500, "broken"), "HTTP 500: broken"),
        ((200, "<html>hello</html>"), "not JSON"),
        ((200, "{}"), "not a chat completion"),
        ((200, "[]"), "not a chat completion"),
        ((200, {"choices": []}), "not a chat completion"),
        ((200, {"choices": [{"message": {"tool_calls": [{"function": {}}]}}]}), "not a chat completion"),
        ((200, {"choices": [{"message": {"tool_calls": 5}}]}), "not a chat completion"),
        ((200, {"choices": [{"message": None}]}), "not a chat completion"),
    ],
)
def test_anything_else_is_one_line(serve, case, reply, said):
    with pytest.raises(EndpointError, match=said) as caught:
        ask(serve(lambda request: reply), case)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_is_too_long_is_a_case_without_an_answer(serve, case):
    server = serve(
        lambda request: (400, {"error": {"code": "context_length_exceeded", "message": "too long"}})
    )
    assert "too long" in ask(server, case).error


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://[/v1", "http://no.such.host.invalid/v1"])
def test_a_server_that_is_not_there_is_said(case, url):
    spec = VariantSpec(name="e", kind="endpoint", location=url, model="m")
    with pytest.raises(EndpointError), open_variant(spec, AnswerOptions()) as variant:
        variant.answer(case, grammar=True)
