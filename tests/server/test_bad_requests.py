"""Requests as nobody should send them: each gets a 4xx that says what was found, and the server goes on."""

from __future__ import annotations

import json

import openai
import pytest

from edge.server.options import ServerOptions
from tests.server.conftest import running_server
from tests.server.fake_engine import FakeEngine, saying

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server():
    engine = FakeEngine(saying("ok"))
    with running_server(engine, ServerOptions(max_body_bytes=200_000)) as running:
        running.engine = engine
        yield running
    engine.close()


@pytest.fixture(scope="module")
def http(server):
    return server.http()


def post(http, body, path="/v1/chat/completions"):
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return http.post(path, content=content)


def tool(parameters, name="f"):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def with_tools(*tools, **more):
    return {"messages": HI, "tools": list(tools), **more}


def call_in_history(arguments):
    function = {"name": "f", "arguments": arguments}
    call = {"id": "1", "type": "function", "function": function}
    return {"messages": [*HI, {"role": "assistant", "tool_calls": [call]}, *HI]}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "invalid_json"),
        (b"{", None, "invalid_json"),
        (b"\xff\xfe", None, "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None, "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": NaN}', None, "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": 1e999}', "temperature", None),
        (b'{"messages": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", None, "invalid_json"),
        ([], None, None),
        ("null", None, None),
        ({}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": [1]}, "messages[0]", "invalid_type"),
        ({"messages": [{}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", None),
        ({"messages": HI, "temprature": 1}, "temprature", "unknown_parameter"),
        ({"messages": HI, "temperature": "1"}, "temperature", "invalid_type"),
        ({"messages": HI, "temperature": -1}, "temperature", "invalid_value"),
        ({"messages": HI, "max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"messages": HI, "max_tokens": True}, "max_tokens", "invalid_type"),
        ({"messages": HI, "max_tokens": 10**30}, "max_tokens", None),
        ({"messages": HI, "n": 0}, "n", "invalid_value"),
        ({"messages": HI, "n": 9}, "n", "invalid_value"),
        ({"messages": HI, "seed": 2**70}, "seed", None),
        ({"messages": HI, "stop": [""]}, "stop", None),
        ({"messages": HI, "stop": ["x"] * 17}, "stop", None),
        ({"messages": HI, "stop": 5}, "stop", None),
        ({"messages": HI, "stream": "yes"}, "stream", "invalid_type"),
        ({"messages": HI, "top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"messages": HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"messages": HI, "deadline_s": 0}, "deadline_s", "invalid_value"),
        ({"messages": HI, "frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
        ({"messages": HI, "logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"messages": HI, "modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({"messages": HI, "functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        (with_tools(5), "tools[0]", "invalid_type"),
        (with_tools({}), "tools", "invalid_tools"),
        (with_tools({"type": "web_search"}), "tools", "invalid_tools"),
        (with_tools(tool({"type": "object"}), tool({"type": "object"})), "tools", "invalid_tools"),
        (with_tools(tool({"type": "object"}, name="a\x00b")), "tools", "invalid_tools"),
        (with_tools(tool(5)), "tools", "invalid_tools"),
        (with_tools(tool({"type": "wat"})), "tools", None),
        (with_tools(*[tool({}, name=f"f{i}") for i in range(2_000)]), "tools", "invalid_value"),
        (with_tools(tool({}), tool_choice="f"), "tool_choice", None),
        (with_tools(tool({}), tool_choice={"type": "function"}), "tool_choice", "invalid_value"),
        (with_tools(tool({}), tool_choice={"function": {"name": "required"}}), "tool_choice", None),
        (with_tools(tool({}), tool_choice={"function": {"name": "g"}}), None, "invalid_value"),
        ({"messages": HI, "tool_choice": "required"}, None, "invalid_value"),
        (with_tools(tool({}), tool_choice={"type": "allowed_tools"}), "tool_choice", "invalid_value"),
        (
            with_tools(
                tool({}),
                tool_choice={
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "g"}}]},
                },
            ),
            "tool_choice",
            "invalid_value",
        ),
    ],
)
def test_a_bad_request_is_a_400_that_names_the_place(http, body, param, code):
    answer = post(http, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert "\n" not in error["message"]
    if param is not None:
        assert (error["param"] or "").startswith(param)
    if code is not None:
        assert error["code"] == code


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "((a+)+)\\1$", "enum": ["a" * 40 + "b"]},
        {"type": "string", "pattern": "a" * 3_000},
        {"patternProperties": {"(?<=a)b\\1": {}}},
        {"allOf": [{"properties": {"x": {"pattern": "(x+x+)+\\1y"}}}] * 3},
        {"type": "object", "properties": {str(i): {"pattern": "a"} for i in range(1_100)}},
    ],
)
@pytest.mark.parametrize("where", ["tools", "response_format"])
def test_schemas_that_would_take_too_long_are_refused_at_once(http, schema, where):
    wrapped = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = with_tools(tool(schema)) if where == "tools" else {"messages": HI, "response_format": wrapped}
    answer = http.post("/v1/chat/completions", json=body, timeout=2)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == where


def test_a_body_that_says_it_is_too_large_is_refused(http):
    answer = post(http, {"messages": [{"role": "user", "content": "x" * 300_000}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_body_that_does_not_say_how_large_it_is_is_bounded_too(http):
    def chunks():
        for _ in range(100):
            yield b"x" * 10_000

    answer = http.post("/v1/chat/completions", content=chunks())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_lie_about_the_length_does_no_harm(server):
    import socket

    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(
            b"POST /v1/tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{}"
        )
        assert b" 4" in sock.recv(1000).splitlines()[0]


def test_a_compressed_body_is_refused(http):
    answer = http.post("/v1/tokenize", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


def test_many_large_bodies_at_once_are_bounded_together(serve):
    server = serve(saying("x"), options=ServerOptions(max_body_bytes=1_024))
    server.service.bodies.take(4_000)
    answer = server.http().post("/v1/tokenize", json={"content": "x" * 500})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_many_bodies")
    assert answer.headers["retry-after"] == "1"
    server.service.bodies.take(-4_000)
    assert server.http().post("/v1/tokenize", json={"content": "x" * 500}).status_code == 200


def test_what_a_body_took_is_given_back_whatever_became_of_it(server, http):
    before = server.service.bodies._left
    post(http, b"{")
    post(http, {"messages": HI})
    post(http, "x" * 300_000)
    assert server.service.bodies._left == before


def test_a_body_that_never_comes_is_not_waited_for(serve):
    import socket

    server = serve(saying("x"), options=ServerOptions(read_timeout_s=0.1))
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /v1/tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        sock.settimeout(5)
        assert sock.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/responses", "/docs", "/v1/chat/completions/"])
def test_an_unknown_address_is_a_404_in_the_same_form(http, path):
    answer = http.post(path, json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_wrong_method_is_a_405_in_the_same_form(http):
    answer = http.get("/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": []}),
        ("/v1/completions", {"prompt": [[]]}),
        ("/v1/completions", {"prompt": {"a": 1}}),
        ("/v1/completions", {"prompt": [1, "a"]}),
        ("/v1/completions", {"prompt": [-1]}),
        ("/v1/completions", {"prompt": ["a"] * 9}),
        ("/v1/completions", {"prompt": "a", "suffix": "b"}),
        ("/v1/completions", {"prompt": [1], "echo": True}),
        ("/v1/completions", {"prompt": "a", "best_of": 3}),
        ("/v1/tokenize", {}),
        ("/v1/tokenize", {"content": None}),
        ("/v1/detokenize", {"tokens": ["a"]}),
        ("/v1/detokenize", {"tokens": "abc"}),
    ],
)
def test_the_other_addresses_check_their_bodies_too(http, path, body):
    answer = post(http, body, path)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_what_does_nothing_here_is_let_through(http):
    body = {"messages": HI, "user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto",
            "presence_penalty": 0, "logit_bias": {}, "modalities": ["text"], "functions": [], "model": "gpt-4o",
            "prediction": None, "verbosity": "low", "stream_options": None, "stop": [], "tools": None}  # fmt: skip
    assert post(http, body).status_code == 200


def test_odd_text_is_text(http, server):
    odd = "\x00\u202e\ufffe<|im_end|>\U0001f468\u200d\U0001f469" + "e\u0301" * 100
    assert post(http, {"messages": [{"role": "user", "content": odd, "name": "\x00"}]}).status_code == 200
    assert server.engine.requests[-1].messages[0]["content"] == odd


def test_a_prompt_that_does_not_fit_says_by_how_much(serve):
    from edge.errors import ContextOverflow

    class Full(FakeEngine):
        def submit(self, request, **more):
            raise ContextOverflow(5_000, 2_048)

    client = serve(engine=Full()).openai()
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="m", messages=HI)
    assert error.value.code == "context_length_exceeded"
    assert (error.value.body["n_prompt_tokens"], error.value.body["n_ctx"]) == (5_000, 2_048)


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "[" * 5_000, '{"a": NaN}', '"\\ud800"'])
def test_broken_arguments_in_the_history_are_a_400_from_the_real_chat_room(arguments):
    from edge.chat.messages import normalize_messages
    from edge.errors import RequestError

    with pytest.raises(RequestError, match="arguments"):
        normalize_messages(call_in_history(arguments)["messages"])
