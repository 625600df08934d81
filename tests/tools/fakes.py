"""A scripted engine and small tools for tests of the agent loop."""

from __future__ import annotations

from edge.tools.executable import ExecutableTool
from edge.types import CallOpened, ContentDelta, Reply, Tool, ToolCall


class ScriptedEngine:
    """Gives the scripted answers, one a request: text, or a list of (name, arguments). Keeps the requests."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def stream(self, request):
        self.requests.append(request)
        return self._events(self.answers.pop(0))

    def _events(self, answer):
        if isinstance(answer, Reply):
            yield answer
            return
        if isinstance(answer, str):
            for word in answer.split(" "):
                yield ContentDelta(word + " ")
            yield Reply(content=answer, reasoning="", tool_calls=(), finish_reason="stop")
            return
        calls = tuple(ToolCall(f"call_{n}", name, arguments) for n, (name, arguments) in enumerate(answer))
        for call in calls:
            yield CallOpened()
            yield call
        yield Reply(content="", reasoning="", tool_calls=calls, finish_reason="tool_calls")

    @property
    def last_results(self):
        """The tool messages that the last request ended with."""
        results = []
        for message in reversed(self.requests[-1].messages):
            if message["role"] != "tool":
                break
            results.insert(0, message["content"])
        return results


def make_tool(name, call, *, effects=(), parameters=None, **rest):
    """An executable tool around `call(arguments, context)`."""
    schema = parameters or {"type": "object"}
    return ExecutableTool(tool=Tool(name, schema), call=call, effects=frozenset(effects), **rest)
