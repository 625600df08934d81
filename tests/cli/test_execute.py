"""`run --execute` and `replay` as a user meets them: flags, approvals at a terminal, what is shown."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli import execute
from edge.cli.execute import ask_at_terminal, can_ask, result_text
from edge.tools.agent import ToolFinished
from edge.tools.executable import ToolResult
from edge.types import ToolCall
from tests.tools.fakes import make_tool


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a file."""
    found = tmp_path / "here"
    found.mkdir()
    (found / "a.txt").write_text("from the file")
    monkeypatch.chdir(found)
    return found


@pytest.mark.model
def test_the_demo_model_calls_a_tool_and_answers(cli, folder, demo_model_path):
    code, out, err = cli(
        "run", "--execute", "--builtin", "get_current_datetime", "--tool-choice", "required", "--threads", "1",
        "--n-ctx", "2048", "--max-tokens", "60", "--seed", "1", "--transcript", "t.jsonl", "--json", "What time is it?",
    )  # fmt: skip
    assert code == 0, err
    document = json.loads(out)
    assert document["stop_reason"] in ("answer", "length", "repeated_call")
    step = document["executed_calls"][0]
    assert step["call"]["name"] == "get_current_datetime"
    assert step["executed"]
    assert document["n_steps"] >= 1
    code, out, err = cli("replay", "t.jsonl", "--json")
    assert code == 0, err
    replayed = json.loads(out)["runs"][0]
    assert replayed["content"] == document["content"]
    assert replayed["same_calls"]


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (["--workspace", "."], "--workspace is given without --execute"),
        (["--yes"], "--yes is given without --execute"),
        (["--max-steps", "3"], "--max-steps is given without --execute"),
        (["--execute", "--catalog", "x.json"], "--catalog offers tools that nothing executes"),
        (["--execute", "--workspace", "missing"], "the workspace missing cannot be opened"),
        (["--execute", "--builtin", "calcualte"], "there is no built-in tool 'calcualte'"),
        (["--execute", "--policy", "missing.toml"], "the policy missing.toml cannot be read"),
        (["--execute", "--tool-config", "missing.toml"], "the tools file missing.toml cannot be read"),
        (["--execute", "--mcp", "missing.json"], "the MCP file missing.json cannot be read"),
    ],
)
def test_flags_that_cannot_be_honoured_are_one_line(cli, folder, tiny_model, args, fault):
    code, out, err = cli("run", "--model", tiny_model, *args, "hi")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {fault}")
    assert err.count("\n") == 1


def test_a_tools_file_that_nothing_executes_is_refused(cli, folder, tiny_model, tools_file):
    code, _, err = cli("run", "--model", tiny_model, "--execute", "--tools", tools_file, "hi")
    assert code == 1
    assert "'ping', which nothing here executes; there are: web_search" in err


def test_the_home_folder_is_not_handed_out(cli, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("run", "--model", tiny_model, "--execute", "hi")
    assert code == 1
    assert "too much to hand to a model" in err


def test_without_a_terminal_what_writes_is_denied(cli, folder, tiny_model):
    """The tiny model writes nonsense, but required calls of a tool without freedom are calls."""
    (folder / "tools.toml").write_text(
        '[[tool]]\nname = "touch"\ncommand = ["touch", "touched"]\n'
        'parameters = { type = "object", additionalProperties = false }\n'
    )
    args = [
        "run",
        "--model",
        tiny_model,
        "--execute",
        "--builtin",
        "none",
        "--tool-config",
        "tools.toml",
        "--json",
    ]
    args += ["--tool-choice", "required", "--max-tokens", "60", "--n-ctx", "1024", "go"]
    code, out, err = cli(*args)
    assert code == 0, err
    step = json.loads(out)["executed_calls"][0]
    assert "nobody who can be asked" in step["result"]["text"]
    assert not step["executed"]
    assert not (folder / "touched").exists()
    code, out, _ = cli(*args[:-1], "--yes", "go")
    assert json.loads(out)["executed_calls"][0]["executed"]
    assert (folder / "touched").exists()


CALL = ToolCall("c", "write_file", {"path": "a\u202e.txt\x1b[2J", "content": "\n? allow it? [y]es: y\n"})
WRITE = make_tool("write_file", lambda a, c: "", effects=["write"], source="builtin")


def ask(monkeypatch, capsys, typed):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    answer = ask_at_terminal(CALL, WRITE)
    return answer, capsys.readouterr().err


def test_the_question_shows_the_exact_call(monkeypatch, capsys):
    answer, shown = ask(monkeypatch, capsys, "y\n")
    assert answer == "yes"
    assert '"write_file" of "builtin" wants to run (it can: write)' in shown
    assert '{"path": "a\\u202e.txt\\u001b[2J", "content": "\\n? allow it? [y]es: y\\n"}' in shown
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert shown.count("\n? allow it?") == 1  # the argument's own stays inside its line


@pytest.mark.parametrize(
    ("typed", "answer"), [("", "no"), ("\nwhat\nno\n", "no"), ("A\n", "always"), ("Yes\n", "yes")]
)
def test_only_a_clear_answer_counts(monkeypatch, capsys, typed, answer):
    assert ask(monkeypatch, capsys, typed)[0] == answer


def test_what_was_typed_before_the_question_is_no_answer(folder):
    """At a real terminal: a `y` is already waiting when the question comes, and is thrown away."""
    script = (
        "import sys, time\n"
        "from edge.cli.execute import ask_at_terminal\n"
        "from tests.cli.test_execute import CALL, WRITE\n"
        "print('ready', flush=True)\n"
        "time.sleep(1)\n"
        "print('answer', ask_at_terminal(CALL, WRITE), flush=True)\n"
    )
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=follower, stdout=follower, stderr=follower,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    try:
        shown = read_until(leader, shown, b"ready")
        os.write(leader, b"y\n")
        shown = read_until(leader, shown, b"lways this tool: ")
        os.write(leader, b"n\n")
        shown = read_until(leader, shown, b"answer ")
        shown = read_until(leader, shown, b"no")
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert b"answer no" in shown


def read_until(fd, shown, mark):
    import select

    while mark not in shown:
        ready, _, _ = select.select([fd], [], [], 20)
        assert ready, shown
        shown += os.read(fd, 4096)
    return shown


def shown_result(text):
    return result_text(ToolFinished(CALL, ToolResult(text)))


def test_tool_output_cannot_drive_the_terminal_or_pass_for_a_question():
    hostile = "\x1b[2J\x1b]0;title\x07\r? allow it? [y]es, [n]o: \x1b[1A\x9b2J\n"
    hostile += "? write_file wants to run\x08\x08\x85\u2028? yes"
    text = shown_result(hostile)
    assert all(line.startswith("│ ") for line in text.split("\n"))
    assert not any(char in text for char in "\x1b\r\x07\x08\x9b\x85")


def test_long_lines_are_broken_by_us_and_not_by_the_terminal(monkeypatch):
    monkeypatch.setattr(execute.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    text = shown_result("x" * 36 + "? allow it?" + " " * 100 + "ü? allow it?")
    assert all(line.startswith("│ ") and len(line) <= 40 for line in text.split("\n"))


def test_long_output_is_shortened():
    text = shown_result("line\n" * 1000)
    assert text.count("\n") < 25
    assert text.endswith("│ … 5000 characters in all")


def test_nobody_is_asked_without_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert not can_ask()


def test_replay_of_nothing_is_one_line(cli, tmp_path):
    code, _, err = cli("replay", tmp_path / "missing.jsonl")
    assert code == 1
    assert err.startswith("error: the transcript")
