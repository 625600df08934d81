from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from edge.cli.repl import Conversation, Leave, changed
from edge.cli.session import Settings
from edge.errors import EdgeError, RequestError
from edge.types import Reply, ToolCall
from tests.cli.conftest import GET


@pytest.fixture
def said():
    return []


@pytest.fixture
def talking(said):
    return Conversation(Settings(), said.append)


def test_text_is_a_question_and_a_blank_line_is_none(talking):
    assert talking.handle("hello") is True
    assert talking.handle("  ") is False
    assert talking.messages == [{"role": "user", "content": "hello"}]


def test_bye_leaves(talking):
    for word in ("/bye", "/exit", "/quit"):
        with pytest.raises(Leave):
            talking.handle(word)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("/set temperature 0.7", "temperature", 0.7),
        ("/set max_tokens 9", "max_tokens", 9),
        ("/set seed 3", "seed", 3),
        ("/set system Be brief, please.", "system", "Be brief, please."),
        ("/set tool_choice required", "tool_choice", "required"),
        ("/set grammar off", "grammar", False),
        ("/set think on", "think", True),
    ],
)
def test_set_changes_one_setting_and_says_so(talking, said, text, name, expected):
    assert talking.handle(text) is False
    assert getattr(talking.settings, name) == expected
    assert said == [f"{name} = {expected!r}"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/set colour red", "there is no setting 'colour'; allowed are temperature"),
        ("/set temperature hot", "temperature cannot be 'hot'"),
        ("/set temperature 99", "temperature is 99.0; allowed is 0 to 5"),
        ("/set max_tokens 0", "max_tokens is 0"),
        ("/set grammar maybe", "grammar cannot be 'maybe': on or off"),
        ("/tools none.json", "the tools file none.json cannot be read"),
        ("/fly", "there is no command /fly; /help lists them"),
    ],
)
def test_a_bad_command_changes_nothing(talking, text, found):
    before = talking.settings
    with pytest.raises(EdgeError) as error:
        talking.handle(text)
    assert found in str(error.value)
    assert talking.settings == before


def test_tools_are_loaded_and_listed(talking, said, tmp_path):
    file = tmp_path / "my tools.json"
    file.write_text(json.dumps([GET]))
    talking.handle(f"/tools '{file}'")
    assert [tool.name for tool in talking.settings.tools] == ["get"]
    assert said[-1].startswith("get")


def test_a_call_and_its_result_go_into_the_history_as_openai_has_them(talking):
    talking.handle("go")
    call = ToolCall("call_0", "f", {"a": 1})
    talking.remember(Reply(content="", reasoning="", tool_calls=(call,), finish_reason="tool_calls"))
    talking.add_result(call, "42")
    assert talking.messages[1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
            ],
        },
        {"role": "tool", "name": "f", "tool_call_id": "call_0", "content": "42"},
    ]


def test_a_setting_out_of_range_is_refused():
    with pytest.raises(RequestError):
        changed(Settings(), "seed", "-1")


class Terminal:
    """The program on a pseudo-terminal."""

    def __init__(self, *args: object, env: dict[str, str]) -> None:
        self.main, child = pty.openpty()
        command = [sys.executable, "-m", "edge.cli", *map(str, args)]
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=env, start_new_session=True, close_fds=True
        )
        os.close(child)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> None:
        """Reads until `pattern` is on the screen after what was waited for before."""
        ends = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < ends, f"no {pattern!r} in {self.seen[-800:]!r}"
            if select.select([self.main], [], [], 0.2)[0]:
                raw = os.read(self.main, 65536).decode("utf-8", "replace")
                if "\x1b[6n" in raw:  # where is the cursor? prompt_toolkit wants to know
                    self.type("\x1b[1;1R")
                self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", raw)
        self.seen = self.seen[match.end() :]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.main)


@pytest.mark.model
def test_a_conversation_at_a_terminal(tiny_model, tools_file, tmp_path):
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "100"}
    terminal = Terminal("run", "--model", tiny_model, "--tools", tools_file, "--threads", "1", env=env)
    try:
        terminal.wait_for("/help for help")
        terminal.wait_for(">>>")
        terminal.type("/set max_tokens 60\r")
        terminal.wait_for("max_tokens = 60")
        terminal.type("/set tool_choice ping\r")
        terminal.wait_for("tool_choice = 'ping'")
        terminal.type("call it\r")
        terminal.wait_for("╭─ ping")
        terminal.wait_for("result of ping>")
        terminal.type("\r")
        terminal.wait_for(">>>")
        terminal.type("/set tool_choice auto\r")
        terminal.wait_for("auto")
        terminal.type('"""two\rlines"""\r')
        terminal.wait_for(">>>")
        terminal.type("/set max_tokens 100000\r")
        terminal.wait_for("max_tokens = 100000")
        terminal.type("/clear\r")
        terminal.wait_for("the conversation is empty")
        terminal.type("talk\r")
        terminal.wait_for("talk")
        time.sleep(0.3)
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.wait_for(r"\(stopped|>>>")
        assert terminal.process.poll() is None
        terminal.type("/bye\r")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()
