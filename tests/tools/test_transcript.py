"""Transcripts: what is recorded can be played again, without model and tools."""

from __future__ import annotations

import json
import stat

import pytest

from edge.errors import ToolsError
from edge.tools.agent import AgentDone, AgentOptions, ToolFinished, run_agent
from edge.tools.policy import Policy
from edge.tools.toolbox import Toolbox
from edge.tools.transcript import read_transcript, recorded, replay
from edge.types import Reply
from tests.tools.fakes import ScriptedEngine, make_tool


@pytest.fixture
def transcript(tmp_path):
    """A run with a result, an error, a denied call, a repeated call and an answer, recorded."""
    count = iter(range(1, 9))
    engine = ScriptedEngine(
        [("count", {}), ("write", {"n": 1})],
        [("fail", {"ü": "\x1b[2J"})],
        [("fail", {"ü": "\x1b[2J"})],
        "the end",
    )
    tools = [
        make_tool("count", lambda a, c: str(next(count))),
        make_tool("write", lambda a, c: "ok", effects=["write"]),
        make_tool("fail", lambda a, c: {}["x"]),
    ]
    messages = [{"role": "user", "content": "go"}]
    path = tmp_path / "run.jsonl"
    events = list(recorded(run_agent(engine, messages, Toolbox(tools), Policy()), path))
    return path, events, messages


def outline(events):
    kept = []
    for event in events:
        if isinstance(event, ToolFinished):
            kept.append((event.call, event.result))
        elif isinstance(event, Reply):
            kept.append((event.content, event.tool_calls))
        elif isinstance(event, AgentDone):
            kept.append((event.reason, event.n_steps))
    return kept


def test_a_replay_is_the_run_again(transcript):
    path, events, _ = transcript
    (recording,) = read_transcript(path)
    assert sorted(map(str, outline(replay(recording)))) == sorted(map(str, outline(events)))
    assert outline(events)[-1] == ("repeated_call", 3)


def test_a_replay_tells_another_model_the_recorded_results(transcript):
    (recording,) = read_transcript(transcript[0])
    other = ScriptedEngine([("count", {}), ("count", {"other": 1})], "done")
    events = list(replay(recording, other))
    texts = [event.result.text for event in events if isinstance(event, ToolFinished)]
    assert sorted(texts) == ["1", "this call is not in the recording"]


def test_each_line_is_json_and_the_file_is_private(transcript):
    path, _, _ = transcript
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines][:2] == ["started", "reply"]
    assert lines[-1] == {"event": "done", "reason": "repeated_call", "n_steps": 3}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_runs_are_appended(transcript):
    path, _, messages = transcript
    messages.append({"role": "user", "content": "more"})
    list(recorded(run_agent(ScriptedEngine("no"), messages, Toolbox(), Policy()), path))
    first, second = read_transcript(path)
    assert len(second.messages) > len(first.messages)
    assert second.replies[0].content == "no"


def test_an_interrupted_run_replays_as_interrupted(tmp_path):
    def interrupt(arguments, context):
        import _thread

        _thread.interrupt_main()
        return context.wait(10) and "late"

    engine = ScriptedEngine([("stop", {})], "never")
    path = tmp_path / "run.jsonl"
    tools = Toolbox([make_tool("stop", interrupt)])
    events = list(recorded(run_agent(engine, [{"role": "user", "content": "x"}], tools, Policy()), path))
    assert events[-1].reason == "interrupted"
    assert list(replay(read_transcript(path)[0]))[-1].reason == "interrupted"


def test_a_line_that_was_not_finished_is_left_out(transcript):
    path, _, _ = transcript
    text = path.read_text()
    path.write_text(text[: text.rindex("{") + 5])
    (recording,) = read_transcript(path)
    assert recording.reason is None
    assert len(recording.replies) == 4


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]\n{}\n", '{"event": "reply"}\n{}\n', '{"event": "started", "version": 9}\n{}\n', "\0\n{}"],
)
def test_what_is_no_transcript_is_refused(tmp_path, text):
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ToolsError, match=r"x\.jsonl"):
        read_transcript(path)


def test_a_transcript_that_cannot_be_written_is_refused_before_anything_runs(tmp_path):
    engine = ScriptedEngine("never")
    with pytest.raises(ToolsError, match="cannot be written"):
        list(recorded(run_agent(engine, [], Toolbox(), Policy(), AgentOptions()), tmp_path / "no" / "x"))
    assert engine.requests == []
