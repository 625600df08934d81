from __future__ import annotations

import io

import pytest
from rich.console import Console

from edge.cli.render import PlainRenderer, TerminalRenderer, printable
from edge.types import (
    CallOpened,
    CallWithdrawn,
    ContentDelta,
    ContentWasReasoning,
    MalformedCall,
    ReasoningDelta,
    Reply,
    ToolCall,
)

CALL = ToolCall("call_0", "get_weather", {"city": "Paris", "note": "\x1b[31m[red]"})
REPLY = Reply(content="", reasoning="", tool_calls=(), finish_reason="stop")


def drawn(*events, colour=False):
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=colour, width=60, no_color=False, color_system="standard" if colour else None
    )
    renderer = TerminalRenderer(console)
    for event in events:
        renderer.show(event)
    return out.getvalue()


def test_thinking_is_dimmed_and_the_answer_is_not(monkeypatch):
    monkeypatch.delenv("NO_COLOR")
    text = drawn(ReasoningDelta("hm"), ContentDelta("Yes"), REPLY, colour=True)
    assert "\x1b[2;3mhm\x1b[0m" in text
    assert "Yes\n" in text.replace("\x1b[0m", "")
    assert "\x1b[2;3mYes" not in text


def test_a_call_is_a_panel_with_its_name_and_arguments():
    lines = drawn(CallOpened(), CALL, REPLY).splitlines()
    top = next(i for i, line in enumerate(lines) if "╭─ get_weather" in line)
    assert '"city": "Paris"' in lines[top + 2]


def test_pieces_of_text_are_not_broken_into_lines_of_their_own():
    assert drawn(*(ContentDelta(piece) for piece in ("a ", "b", " [c] ", "*d*")), REPLY) == "a b [c] *d*\n"


def test_what_went_wrong_is_said():
    assert "withdrawn" in drawn(CallWithdrawn())
    assert "not a valid call (no name): x" in drawn(MalformedCall("x", "no name"))
    assert "was thinking" in drawn(ContentDelta("a"), ContentWasReasoning())


@pytest.mark.parametrize("event", [ContentDelta("a\x1b[2Jb\x07"), CALL, MalformedCall("\x1b]0;x\x07", "bad")])
def test_a_model_cannot_drive_the_terminal(event, capsys):
    assert "\x1b" not in drawn(event)
    PlainRenderer().show(event)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err


def test_printable_keeps_lines_tabs_and_letters():
    assert printable("é\t東\n𝄞") == "é\t東\n𝄞"
    assert printable("\r\x00\x9b") == "\N{REPLACEMENT CHARACTER}" * 3


def test_plain_output_has_each_call_on_a_line_of_its_own(capsys):
    renderer = PlainRenderer()
    for event in (
        ContentDelta("I look."),
        ToolCall("call_0", "f", {"a": "é"}),
        ToolCall("call_1", "g", {}),
        REPLY,
    ):
        renderer.show(event)
    assert (
        capsys.readouterr().out
        == 'I look.\n{"name": "f", "arguments": {"a": "é"}}\n{"name": "g", "arguments": {}}\n'
    )
