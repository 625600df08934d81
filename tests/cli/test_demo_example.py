"""The four conversations of `make demo`."""

from __future__ import annotations

from edge.examples.demo import SCENES, play, read_tools
from edge.types import Reply, ToolCall


class FakeEngine:
    """Answers with what it is given, and keeps the request."""

    def __init__(self, reply: Reply) -> None:
        self.reply, self.request = reply, None

    def chat(self, request):
        self.request = request
        return self.reply


def test_every_scene_offers_tools_that_there_are():
    names = {tool.name for tool in read_tools()}
    assert [scene.title for scene in SCENES] == [
        "a call", "two calls at once", "no tool", "a call after an error",
    ]  # fmt: skip
    assert {name for scene in SCENES for name in scene.tools} <= names


def test_a_scene_shows_what_was_said_and_how_the_model_goes_on():
    calls = (ToolCall("call_0", "read_file", {"path": "minutes/2025-03.md"}),)
    engine = FakeEngine(Reply("One moment.", "", calls, "tool_calls"))
    lines = play(engine, SCENES[3])
    assert [tool.name for tool in engine.request.tools] == list(SCENES[3].tools)
    assert lines[0] == "a call after an error (tools: read_file, list_directory, send_email)"
    assert lines[2] == '  model  read_file {"path": "minutes/march.md"}'
    assert lines[3].startswith("  tool   error: there is no minutes/march.md")
    assert lines[4:] == ["  model  One moment.", '  model  read_file {"path": "minutes/2025-03.md"}']
