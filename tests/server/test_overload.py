"""Too many clients, clients that leave, answers that fail or take too long: everybody else is served."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter

import httpx
import openai
import pytest

from edge.errors import EngineError
from edge.server.options import ServerOptions
from tests.server.fake_engine import FakeEngine, saying

HI = [{"role": "user", "content": "hi"}]


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def post_raw(port, body, *, keep=b""):
    """Sends a request on a socket of its own and returns that."""
    data = json.dumps(body).encode()
    sock = socket.create_connection(("127.0.0.1", port))
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += f"Content-Length: {len(data)}\r\n\r\n"
    sock.sendall(head.encode() + data + keep)
    return sock


def test_64_at_once_on_4_sequences_and_a_queue_of_16(serve):
    gate = threading.Event()
    server = serve(lambda request: [gate, *saying("ok")], n_parallel=4, max_queue=16)

    async def main():
        async with httpx.AsyncClient(
            base_url=server.url, timeout=20, limits=httpx.Limits(max_connections=64)
        ) as http:

            async def ask():
                return await http.post("/v1/chat/completions", json={"messages": HI})

            tasks = [asyncio.create_task(ask()) for _ in range(64)]
            while server.engine.stats().requests < 20 or sum(task.done() for task in tasks) < 44:
                await asyncio.sleep(0.01)
            gate.set()
            return await asyncio.gather(*tasks)

    answers = asyncio.run(main())
    assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 44}
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "queue_full"
            assert int(answer.headers["retry-after"]) >= 1
        else:
            assert answer.json()["choices"][0]["message"]["content"] == "ok"
    stats = server.engine.stats()
    assert (stats.finished, stats.running, stats.queued, stats.n_sequences_free) == (20, 0, 0, 4)
    assert server.service._live == set()


def test_no_thread_waits_for_an_answer(serve):
    gate = threading.Event()
    server = serve(lambda request: [gate, *saying("ok")], n_parallel=1, max_queue=100)
    before = threading.active_count()
    socks = [post_raw(server.port, {"messages": HI, "stream": i % 2 == 0}) for i in range(84)]
    try:
        wait_until(lambda: server.engine.stats().requests == 84)
        assert threading.active_count() - before <= 3
    finally:
        gate.set()
        for sock in socks:
            sock.close()


def test_openais_client_waits_as_long_as_it_is_told_and_tries_again(serve):
    gate = threading.Event()
    server = serve(lambda request: [gate, *saying("ok")], n_parallel=1, max_queue=0)
    first = post_raw(server.port, {"messages": HI})
    wait_until(lambda: server.engine.stats().running == 1)
    threading.Timer(0.3, gate.set).start()
    client = server.openai(max_retries=3)
    assert client.chat.completions.create(model="m", messages=HI).choices[0].message.content == "ok"
    assert server.engine.stats().requests == 2
    first.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_sequence_at_once(serve, stream):
    never = threading.Event()
    server = serve(lambda request: [*saying("a", "b")[:-1], never], n_parallel=1)
    sock = post_raw(server.port, {"messages": HI, "stream": stream})
    wait_until(lambda: server.engine.stats().running == 1)
    if stream:
        assert sock.recv(100)
    sock.close()
    wait_until(lambda: server.engine.stats().cancelled == 1, seconds=10)
    wait_until(lambda: server.engine.stats().n_sequences_free == 1, seconds=10)
    wait_until(lambda: not server.service._live)
    assert "smoltools_edge_client_hang_ups_total 1.0" in server.http().get("/metrics").text


def test_a_client_that_hangs_up_while_it_waits_never_runs(serve):
    gate = threading.Event()
    server = serve(lambda request: [gate, *saying("ok")], n_parallel=1)
    running = post_raw(server.port, {"messages": HI})
    wait_until(lambda: server.engine.stats().running == 1)
    waiting = post_raw(server.port, {"messages": HI})
    wait_until(lambda: server.engine.stats().queued == 1)
    waiting.close()
    wait_until(lambda: len(server.service._live) == 1)
    gate.set()
    wait_until(lambda: server.engine.stats().cancelled == 1)
    assert server.engine.stats().finished == 1
    running.close()


def test_a_client_that_hangs_up_with_half_its_body_sent_does_no_harm(serve):
    server = serve(saying("ok"))
    for sent in (
        b"POST /v1/chat/comp",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(sent)
    assert server.http().post("/v1/chat/completions", json={"messages": HI}).status_code == 200
    assert server.engine.stats().requests == 1


def test_all_answers_of_a_request_are_given_up_together(serve):
    never = threading.Event()
    server = serve(lambda request: [never], n_parallel=2)
    sock = post_raw(server.port, {"messages": HI, "n": 4})
    wait_until(lambda: server.engine.stats().requests == 4)
    sock.close()
    wait_until(lambda: server.engine.stats().cancelled == 4)


def test_of_several_answers_all_are_taken_in_or_none(serve):
    never = threading.Event()
    server = serve(lambda request: [never], n_parallel=1, max_queue=2)
    with pytest.raises(openai.RateLimitError) as error:
        server.openai().chat.completions.create(model="m", messages=HI, n=5)
    assert error.value.response.headers["retry-after"] == "3"
    wait_until(lambda: server.engine.stats().cancelled == 3)
    assert server.service._live == set()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_past_its_deadline_is_a_504_that_is_not_repeated(serve, stream):
    never = threading.Event()
    server = serve(lambda request: [never], options=ServerOptions(deadline_s=0.2))
    with pytest.raises(openai.InternalServerError) as error:
        server.openai(max_retries=5).chat.completions.create(model="m", messages=HI, stream=stream)
    assert error.value.status_code == 504
    assert error.value.code == "deadline_exceeded"
    assert server.engine.stats().requests == 1


def test_a_failure_before_the_first_piece_is_a_status_even_in_a_stream(serve):
    server = serve([EngineError("llama_decode gave status 1 in /secret/place")])
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as error:
            server.openai().chat.completions.create(model="m", messages=HI, stream=stream)
        assert error.value.code == "engine_error"
        assert "secret" not in str(error.value)


def test_a_failure_in_the_middle_of_a_stream_is_an_error_and_no_end(serve):
    server = serve([*saying("Hel")[:-1], EngineError("broken")])
    stream = server.openai().chat.completions.create(model="m", messages=HI, stream=True)
    with pytest.raises(openai.APIError, match="engine failed"):
        list(stream)
    text = server.http().post("/v1/chat/completions", json={"messages": HI, "stream": True}).text
    assert "Hel" in text
    assert "[DONE]" not in text


def test_others_are_not_touched_by_a_failure(serve):
    gate = threading.Event()
    scripts = iter([[gate, *saying("fine")], [EngineError("broken")]])
    server = serve(lambda request: next(scripts), n_parallel=2)
    sock = post_raw(server.port, {"messages": HI})
    wait_until(lambda: server.engine.stats().running == 1)
    assert server.http().post("/v1/chat/completions", json={"messages": HI}).status_code == 500
    gate.set()
    with sock, sock.makefile("rb") as file:
        assert any(b"fine" in line for line in iter(file.readline, b""))


def test_a_bug_in_the_engine_is_a_500_with_an_id_and_the_server_goes_on(serve, caplog):
    class Buggy(FakeEngine):
        def submit(self, request, **more):
            raise ZeroDivisionError("at /secret/place")

    server = serve(engine=Buggy())
    answer = server.http().post("/v1/chat/completions", json={"messages": HI})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert server.http().get("/health").status_code == 200
    (record,) = [r for r in caplog.records if r.getMessage() == "failure"]
    assert record.facts["request_id"] == answer.headers["x-request-id"]
    assert record.facts["error"] == "ZeroDivisionError"
    assert "tests.server.test_overload:" in record.facts["at"]
    assert "secret" not in str(record.facts)


def test_a_silent_stream_sends_comments(serve):
    gate = threading.Event()
    server = serve(lambda request: [gate, *saying("ok")], options=ServerOptions(keep_alive_s=0.05))
    threading.Timer(0.4, gate.set).start()
    text = server.http().post("/v1/chat/completions", json={"messages": HI, "stream": True}).text
    assert text.count(": keep-alive\n\n") >= 3
    assert text.index(": keep-alive") < text.index("ok")
    assert text.endswith("data: [DONE]\n\n")


def test_prefill_shows_as_comments_that_clients_skip(serve):
    from edge.types import PrefillProgress

    server = serve([PrefillProgress(64, 128), PrefillProgress(128, 128), *saying("ok")])
    text = server.http().post("/v1/chat/completions", json={"messages": HI, "stream": True}).text
    assert ": prefill 64/128\n\n" in text
    chunks = list(server.openai().chat.completions.create(model="m", messages=HI, stream=True))
    assert len(chunks) == 3


def test_a_client_that_does_not_read_is_given_up(serve):
    piece = "x" * 100_000
    server = serve(lambda request: [*saying(*[piece] * 400)], options=ServerOptions(write_timeout_s=0.3))
    sock = post_raw(server.port, {"messages": HI, "stream": True})
    wait_until(lambda: server.engine.stats().finished == 1)
    assert server.service._live
    wait_until(lambda: not server.service._live, seconds=20)
    sock.close()


def test_a_closed_engine_is_a_503(serve):
    server = serve(saying("ok"))
    server.engine.close()
    answer = server.http().post("/v1/chat/completions", json={"messages": HI})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert answer.headers["retry-after"]
