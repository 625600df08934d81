"""A request that is over leaves nothing behind that only Python's cycle collector could free."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest

from edge.server.answers import Answers
from tests.server.fake_engine import saying
from tests.server.test_overload import HI, post_raw, wait_until


def answers() -> list[Answers]:
    return [thing for thing in gc.get_objects() if isinstance(thing, Answers)]


@pytest.fixture
def n_alive(no_collector) -> Callable[[], int]:
    """Those of this test: an engine of a test before may still hold on to its last one."""
    of_others = answers()  # held, so that no later one gets the id of one of them

    def count() -> int:
        return len({id(one) for one in answers()} - {id(one) for one in of_others})

    return count


@pytest.mark.parametrize("stream", [False, True])
def test_an_answered_request(serve, n_alive, stream):
    server = serve(saying("a", "b"))
    http = server.http()
    for _ in range(8):
        assert http.post("/v1/chat/completions", json={"messages": HI, "stream": stream}).status_code == 200
    wait_until(lambda: n_alive() <= 1)  # the scripted engine's thread holds on to its last request


@pytest.mark.parametrize("stream", [False, True])
def test_one_past_its_deadline(serve, n_alive, stream):
    never = threading.Event()
    server = serve(lambda request: [never])
    http = server.http()
    asked = {"messages": HI, "stream": stream, "deadline_s": 0.02}
    for _ in range(4):
        assert http.post("/v1/chat/completions", json=asked).status_code == 504
    wait_until(lambda: n_alive() <= 1)


@pytest.mark.parametrize("stream", [False, True])
def test_one_whose_client_hung_up(serve, n_alive, stream):
    never = threading.Event()
    server = serve(lambda request: [*saying("a", "b")[:-1], never])
    for n in range(1, 5):
        sock = post_raw(server.port, {"messages": HI, "stream": stream})
        wait_until(lambda: server.engine.stats().running == 1)
        sock.close()
        wait_until(lambda n=n: server.engine.stats().cancelled == n)
    wait_until(lambda: n_alive() <= 1)
