"""`--top-k` and its companions: what goes together, and executed tools narrowed down to those that fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge.cli.execute import ExecuteOptions, _offering
from edge.engine.request import ChatRequest
from edge.tools.agent import AgentOptions, run_agent
from edge.tools.policy import Policy
from edge.tools.toolbox import Toolbox
from tests.tools.fakes import ScriptedEngine, make_tool


class CountingEngine(ScriptedEngine):
    """A scripted engine with the size of a real one."""

    context = SimpleNamespace(plan=SimpleNamespace(n_ctx=4096))

    def tokenize(self, text):
        return text.split()


def toolbox():
    return Toolbox(
        make_tool(name, lambda arguments, context: "done") for name in ("ring_bell", "open_door", "play_song")
    )


def run(engine, top_k, messages):
    options = ExecuteOptions(top_k=top_k)
    tools = toolbox()
    request = ChatRequest(messages=(), max_tokens=9)
    list(
        run_agent(_offering(engine, tools, options), messages, tools, Policy(), AgentOptions(request=request))
    )
    return engine.requests


def names(tools):
    return [tool.name for tool in tools]


def test_executed_tools_are_narrowed_down_to_those_that_fit():
    first, second = run(
        CountingEngine([("open_door", {})], "It is open."), 1, [{"role": "user", "content": "open the door"}]
    )
    assert names(first.tools) == names(second.tools) == ["open_door"]
    assert second.messages[-1]["content"] == "done"


def test_without_top_k_all_are_offered():
    (request,) = run(CountingEngine("Hm."), None, [{"role": "user", "content": "open the door"}])
    assert names(request.tools) == ["ring_bell", "open_door", "play_song"]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--top-k", "3"], "--top-k is given without --catalog or --execute"),
        (["--tool-budget", "300"], "--tool-budget is given without --catalog or --execute"),
        (["--embed-model", "x.gguf"], "--embed-model is given without --catalog"),
    ],
)
def test_flags_without_many_tools_are_refused(cli, tiny_model, flags, found):
    code, out, err = cli("run", "hi", "--model", tiny_model, *flags)
    assert (code, out) == (1, "")
    assert found in err
