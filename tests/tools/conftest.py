from __future__ import annotations

import http.server
import threading

import pytest

from edge.tools.builtin import builtin_tools
from edge.tools.config import ToolsConfig
from edge.tools.executable import CallContext
from edge.tools.running import execute
from edge.tools.sandbox import sandbox_problem
from edge.tools.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    """A workspace with a secret file beside it."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("the secret")
    found = Workspace(folder)
    yield found
    found.close()


@pytest.fixture
def builtin(workspace):
    """Runs a built-in tool: its result. Keyword `config` is the tools' configuration."""

    def run(name, config=None, **arguments):
        tools = {t.name: t for t in builtin_tools(ToolsConfig(**(config or {})), workspace)}
        return execute(tools[name], arguments, CallContext(20))

    return run


@pytest.fixture
def needs_sandbox():
    if problem := sandbox_problem():
        pytest.skip(problem)


@pytest.fixture
def web():
    """Starts HTTP servers on 127.0.0.1 from a function `(handler) -> None`; gives the port."""
    servers = []

    def serve(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def __getattr__(self, name):
                if name.startswith("do_"):
                    return lambda: answer(self)
                raise AttributeError(name)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return server.server_port

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(handler, body=b"", status=200, **headers):
    """Answers a request."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
