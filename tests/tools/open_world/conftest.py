from __future__ import annotations

from edge.errors import ContextOverflow
from edge.tools.open_world.profile import built_in
from edge.tools.retrieval.catalogue import CatalogueTool
from edge.types import ContentDelta, MalformedCall, Reply, Tool, ToolCall

PROFILE = built_in("toolomni")
CALLS = built_in("calls")
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = CatalogueTool("w/get_weather", Tool("get_weather", CITY, "Weather of a city. " + "Long. " * 300))
MAIL = CatalogueTool(
    "m/send_mail",
    Tool("send_mail", {"type": "object", "properties": {"to": {"type": "string"}}}, "Send a mail"),
)
BROKEN = CatalogueTool("b/broken", Tool("broken", {"$ref": "https://example.org/x"}, "Cannot be called"))
CATALOGUE = {"weather": WEATHER, "mail": MAIL, "broken": BROKEN}


class Policy:
    """A scripted policy model: each step says the next text, calls, or malformed calls of its script.

    A text is content; a list of ToolCall or MalformedCall are calls; an exception is raised. It keeps the requests.
    """

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []

    def stream(self, request):
        self.requests.append(request)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return self._events(step)

    def _events(self, step):
        if isinstance(step, str):
            yield ContentDelta(step)
            yield Reply(step, "", (), "stop")
            return
        calls = tuple(part for part in step if isinstance(part, ToolCall))
        yield from calls
        malformed = tuple(part for part in step if isinstance(part, MalformedCall))
        yield Reply("", "", calls, "tool_calls" if calls else "stop", malformed_calls=malformed)

    def said_to(self, step):
        """The last message that the model saw before a step."""
        return str(self.requests[step].messages[-1]["content"])


class Shelf:
    """Finds the tools whose key word stands in the query, in the catalogue's order."""

    def __init__(self):
        self.queries = []

    def find(self, query, k):
        self.queries.append((query, k))
        return [tool for word, tool in CATALOGUE.items() if word in query][:k]


def call(name, **arguments):
    return ToolCall(f"call_{name}", name, arguments)


def chosen(text):
    """A choice as a model without a grammar writes it."""
    return [MalformedCall(text, "not a call")]


def overflow():
    return ContextOverflow(5000, 4096)
