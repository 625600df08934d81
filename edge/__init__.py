"""Tool calls from small models, on the device: load, chat with tools, stream.

    from edge import ChatRequest, load

    with load("demo") as engine:
        reply = engine.chat(ChatRequest(messages=[{"role": "user", "content": "Weather in Paris?"}], tools=tools))
        print(reply.tool_calls)

Names are imported when they are first used, so that `import edge` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers read it as True; importing typing would double the cost of this module
if TYPE_CHECKING:
    from edge.chat.template import ChatTemplate, hermes_template
    from edge.engine.context import ContextOptions
    from edge.engine.engine import Engine
    from edge.engine.model import ModelOptions
    from edge.engine.request import ChatRequest
    from edge.engine.sampling import SamplingOptions
    from edge.errors import EdgeError
    from edge.models.load import load
    from edge.types import (
        CallOpened,
        CallWithdrawn,
        ContentDelta,
        ContentWasReasoning,
        Event,
        LateCheckNote,
        MalformedCall,
        ReasoningDelta,
        Reply,
        Timings,
        Tool,
        ToolCall,
        Usage,
    )

_HOMES = {
    "ChatTemplate": "edge.chat.template",
    "hermes_template": "edge.chat.template",
    "ContextOptions": "edge.engine.context",
    "Engine": "edge.engine.engine",
    "ModelOptions": "edge.engine.model",
    "ChatRequest": "edge.engine.request",
    "SamplingOptions": "edge.engine.sampling",
    "EdgeError": "edge.errors",
    "load": "edge.models.load",
    "CallOpened": "edge.types",
    "CallWithdrawn": "edge.types",
    "ContentDelta": "edge.types",
    "ContentWasReasoning": "edge.types",
    "Event": "edge.types",
    "LateCheckNote": "edge.types",
    "MalformedCall": "edge.types",
    "ReasoningDelta": "edge.types",
    "Reply": "edge.types",
    "Timings": "edge.types",
    "Tool": "edge.types",
    "ToolCall": "edge.types",
    "Usage": "edge.types",
}

__all__ = [
    "CallOpened",
    "CallWithdrawn",
    "ChatRequest",
    "ChatTemplate",
    "ContentDelta",
    "ContentWasReasoning",
    "ContextOptions",
    "EdgeError",
    "Engine",
    "Event",
    "LateCheckNote",
    "MalformedCall",
    "ModelOptions",
    "ReasoningDelta",
    "Reply",
    "SamplingOptions",
    "Timings",
    "Tool",
    "ToolCall",
    "Usage",
    "hermes_template",
    "load",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'edge' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
