from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack, contextmanager

import httpx
import openai
import pytest

from edge.server.app import create_app
from edge.server.lifecycle import HttpServer, listening_socket
from edge.server.options import ListenOptions, ServerOptions
from tests.server.fake_engine import FakeEngine


class Running:
    """A server on a real socket: its address, its application, clients for it."""

    def __init__(self, app, port, stack):
        self.app, self.port, self._stack = app, port, stack
        self.service = app.state.service
        self.url = f"http://127.0.0.1:{port}"

    def openai(self, **options):
        options = {"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0, **options}
        return self._stack.enter_context(openai.OpenAI(**options))

    def async_openai(self, **options):
        options = {"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0, **options}
        return openai.AsyncOpenAI(**options)

    def http(self, **options):
        return self._stack.enter_context(httpx.Client(base_url=self.url, timeout=20, **options))


@contextmanager
def running_server(engine, options=None, **more):
    """uvicorn in a thread on a free port, as `serve` sets it up."""
    app = create_app(engine, options or ServerOptions(), **more)
    sock = listening_socket(ListenOptions(port=0))
    server = HttpServer.over(app, ListenOptions(port=0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    try:
        with ExitStack() as stack:
            yield Running(app, sock.getsockname()[1], stack)
    finally:
        app.state.service.give_up_all()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def serve():
    """Starts servers over scripted engines; ends them with the test."""
    with ExitStack() as stack:

        def start(script=(), *, options=None, n_parallel=1, max_queue=4, engine=None, **more):
            engine = engine or FakeEngine(script, n_parallel=n_parallel, max_queue=max_queue)
            stack.callback(engine.close)
            running = stack.enter_context(running_server(engine, options, **more))
            running.engine = engine
            return running

        yield start
