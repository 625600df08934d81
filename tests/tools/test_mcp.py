"""The MCP client against real servers, and against a small one that dies, hangs, counts and changes its tools."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge.errors import ToolsError
from edge.tools.executable import CallContext
from edge.tools.mcp_client import McpServers, _names
from edge.tools.mcp_config import McpServer, read_mcp_servers
from edge.tools.running import execute
from edge.tools.toolbox import Toolbox
from tests.tools.conftest import reply
from tests.tools.fakes import make_tool

REPO = Path(__file__).parents[2]
FAKE = str(REPO / "tests" / "tools" / "mcp_fake_server.py")


class Session:
    """Servers with a toolbox; `call` runs a tool."""

    def __init__(self, servers, *tools):
        self.toolbox = Toolbox(tools)
        self.servers = McpServers(servers, self.toolbox)
        self.progress = []

    def call(self, name, *, timeout_s=20.0, context=None, **arguments):
        context = context or CallContext(timeout_s, self.progress.append)
        return execute(self.toolbox.get(name), arguments, context)

    @property
    def failures(self):
        """Notes about servers, without those about single tools."""
        return [note for note in self.toolbox.notes if "left out" not in note]

    @property
    def names(self):
        return [tool.name for tool in self.toolbox]


def fake(*args, **rest):
    return McpServer(command=sys.executable, args=(FAKE, *args), **rest)


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def session(marks):
    """The fake server, under one process for all tests that do not mind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_secret")
        found = Session({"fake": fake(env={"FAKE_MARKS": str(marks)})})
    yield found
    found.servers.close()


def test_a_servers_tools_are_offered_and_called(session):
    assert "echo" in session.names
    assert session.toolbox.get("echo").tool.description == "Give the text back."
    assert session.call("echo", text="hi").text == "hi"


def test_progress_is_reported(session):
    assert session.call("count", to=3).text == "3"
    wait_for(lambda: len(session.progress) == 3)
    assert session.progress == ["1/3 at 1", "2/3 at 2", "3/3 at 3"]


def test_an_error_of_a_tool_is_an_error_result(session):
    result = session.call("fail")
    assert result.is_error
    assert "fail" in result.text


def test_our_environment_is_not_the_servers(session):
    names = session.call("environment").text.split()
    assert "PATH" in names
    assert "FAKE_MARKS" in names
    assert "HF_TOKEN" not in names


def test_a_server_that_does_not_answer_is_given_up_in_time(session):
    started = time.monotonic()
    result = session.call("hang", timeout_s=0.5)
    assert result.is_error
    assert "in time" in result.text or "cancelled" in result.text
    assert time.monotonic() - started < 4
    assert session.call("echo", text="still there").text == "still there"


def test_a_cancelled_call_is_cancelled_on_the_server(session, marks):
    for path in marks.iterdir():
        path.unlink()
    context = CallContext(30)
    threading.Thread(
        target=lambda: (wait_for((marks / "hanging").exists), context.cancel()), daemon=True
    ).start()
    started = time.monotonic()
    assert session.call("hang", context=context).is_error
    wait_for((marks / "cancelled").exists)
    assert time.monotonic() - started < 10


def test_what_a_server_says_about_itself_is_not_believed(session):
    assert session.toolbox.get("claims_to_read").effects == {"execute"}


def test_a_description_cannot_end_the_system_block(session):
    shown = json.dumps(session.toolbox.get("poison").tool.to_openai())
    assert "Good." in shown
    assert not any(mark in shown for mark in ("<|", "</tools>", "\\u001b"))


def test_a_tool_whose_name_is_none_is_left_out_with_a_note(session):
    assert not any("bad" in name for name in session.names)
    assert any("U+001B" in note and "left out" in note for note in session.toolbox.notes)
    assert all(note.isprintable() for note in session.toolbox.notes)


def test_a_list_that_changes_changes_the_toolbox(session):
    assert "grown" not in session.names
    session.call("grow")
    wait_for(lambda: "grown" in session.names)
    assert session.call("grown").text == "grown"


def test_a_server_that_dies_is_started_again(session, marks):
    result = session.call("die")
    assert result.is_error
    assert "died during the call" in result.text
    assert len((marks / "died").read_text().split()) == 1  # a call under way is not made twice
    assert session.call("echo", text="back").text == "back"
    assert session.call("die_later").text == "bye"
    time.sleep(0.5)
    assert session.call("echo", text="again").text == "again"


def test_a_server_that_does_not_start_is_a_note_and_the_others_work():
    servers = {
        "missing": McpServer(command="/nothing/here"),
        "silent": fake("--silent", start_timeout_s=0.5),
        "wrong": McpServer(command=sys.executable, args=("-c", "print('no JSON')")),
        "trusted": fake(trust_annotations=True),
    }
    builtin = make_tool("echo", lambda arguments, context: "mine")
    session = Session(servers, builtin)
    try:
        assert len(session.failures) == 3
        assert any("missing cannot be used" in note for note in session.toolbox.notes)
        assert any("silent did not answer within 0.5 s" in note for note in session.toolbox.notes)
        assert session.call("echo").text == "mine"  # a tool that is there keeps its name
        assert session.call("trusted__echo", text="theirs").text == "theirs"
        assert session.toolbox.get("claims_to_read").effects == {"read"}
    finally:
        session.servers.close()


@pytest.mark.heavy
def test_real_servers_tell_the_time_read_a_repository_and_fetch_a_page(tmp_path, web):
    repository = tmp_path / "repository"
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "The first"], check=True)
    port = web(
        lambda handler: reply(
            handler, b"<html><body><h1>Local page</h1></body></html>", content_type="text/html"
        )
    )
    servers = {
        "time": McpServer(command=sys.executable, args=("-m", "mcp_server_time", "--local-timezone", "UTC")),
        "git": McpServer(
            command=sys.executable, args=("-m", "mcp_server_git", "--repository", str(repository))
        ),
        "fetch": McpServer(
            command=sys.executable,
            args=("-m", "mcp_server_fetch", "--ignore-robots-txt", "--allow-private-ips"),
        ),
    }
    session = Session(servers)
    try:
        assert session.toolbox.notes == []
        found = json.loads(session.call("get_current_time", timezone="Asia/Tokyo").text)
        assert found["datetime"].endswith("+09:00")
        assert session.call("get_current_time", timezone="Mars/Base").is_error
        assert "The first" in session.call("git_log", repo_path=str(repository)).text
        assert "Local page" in session.call("fetch", url=f"http://127.0.0.1:{port}/").text
    finally:
        session.servers.close()


def test_a_server_over_http_works_and_may_come_back():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, FAKE, "--http", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _accepts(port), 20)
        session = Session({"web": McpServer(url=f"http://127.0.0.1:{port}/mcp")})
        try:
            assert session.failures == []
            assert session.call("echo", text="over http").text == "over http"
            process.kill()
            process.wait()
            assert session.call("echo", text="gone", timeout_s=5).is_error
        finally:
            session.servers.close()
    finally:
        process.kill()
        process.wait()


def _accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Listed:
    def __init__(self, name):
        self.name = name


def test_colliding_names_are_prefixed_on_both_sides():
    listed = {"a": [Listed("get"), Listed("one")], "b": [Listed("get"), Listed("mine")]}
    assert _names(listed, {"mine"}) == {
        "a": {"get": "a__get", "one": "one"},
        "b": {"get": "b__get", "mine": "b__mine"},
    }


def write(tmp_path, value):
    path = tmp_path / "mcp.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_the_file_of_other_clients_is_read(tmp_path):
    servers = {
        "files": {
            "command": "npx",
            "args": ["-y", "x"],
            "env": {"TOKEN": "${MY_TOKEN}"},
            "autoApprove": ["a"],
        },
        "web": {
            "type": "http",
            "url": "https://example.org/mcp",
            "headers": {"Authorization": "Bearer ${MY_TOKEN}"},
        },
        "off": {"command": "x", "disabled": True, "env": {"A": "${NOT_SET}"}},
    }
    found = read_mcp_servers(write(tmp_path, {"mcpServers": servers}), {"MY_TOKEN": "t"})
    assert list(found) == ["files", "web"]
    assert found["files"].env == {"TOKEN": "t"}
    assert found["web"].headers == {"Authorization": "Bearer t"}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("{", "is not JSON"),
        ([], 'no "mcpServers"'),
        ({"mcpServers": {"a": {}}}, "server 'a': exactly one of command and url"),
        ({"mcpServers": {"a": {"command": "x", "url": "http://x"}}}, "exactly one"),
        ({"mcpServers": {"a": {"url": "ftp://x"}}}, "http or https"),
        ({"mcpServers": {"a": {"type": "sse", "url": "http://x"}}}, "SSE"),
        ({"mcpServers": {"a b": {"command": "x"}}}, "letters, digits"),
        ({"mcpServers": {"a": {"command": "x", "env": {"T": "${NOT_SET}"}}}}, "'NOT_SET' is not set"),
        ({"mcpServers": {"a": {"command": ["x"]}}}, "command"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, value, fault):
    with pytest.raises(ToolsError, match=fault):
        read_mcp_servers(write(tmp_path, value), {})
