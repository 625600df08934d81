"""Shows the demo model: a call, two at once, a question that needs none, and a call after an error.

    python -m edge.examples.demo [REF]

Nothing is executed: the calls are printed. An example of the library too; it imports nothing but `edge`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import resources

from edge import ChatRequest, EdgeError, Engine, Tool, load


@dataclass(frozen=True, slots=True)
class Scene:
    """A conversation up to where the model goes on, and the names of the tools that it is offered."""

    title: str
    messages: list[dict[str, object]]
    tools: tuple[str, ...]


def user(text: str) -> dict[str, object]:
    """A user's message."""
    return {"role": "user", "content": text}


SCENES = (
    Scene(
        "a call",
        [user("What's the weather like in Lisbon right now, in celsius?")],
        ("get_weather", "calculate", "send_email"),
    ),
    Scene(
        "two calls at once",
        [user("Is it colder in Oslo or in Madrid right now?")],
        ("get_weather", "calculate", "get_current_datetime"),
    ),
    Scene(
        "no tool",
        [user("Can you explain in one sentence what a tide is?")],
        ("get_weather", "read_file", "send_email"),
    ),
    Scene(
        "a call after an error",
        [
            user("What did we decide in the March meeting?"),
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"function": {"name": "read_file", "arguments": {"path": "minutes/march.md"}}},
                ],
            },
            {
                "role": "tool",
                "content": "error: there is no minutes/march.md; did you mean minutes/2025-03.md?",
            },
        ],
        ("read_file", "list_directory", "send_email"),
    ),
)


def main() -> int:
    """Plays the scenes; the exit code."""
    ref = sys.argv[1] if len(sys.argv) > 1 else "demo"
    try:
        with load(ref, progress=lambda line: print(line, file=sys.stderr)) as engine:
            for scene in SCENES:
                print("\n".join(play(engine, scene)), end="\n\n", flush=True)
    except EdgeError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


def play(engine: Engine, scene: Scene) -> list[str]:
    """What was said, and how the model goes on, a line each."""
    offered = {tool.name: tool for tool in read_tools()}
    request = ChatRequest(
        messages=scene.messages, tools=tuple(offered[name] for name in scene.tools), max_tokens=200
    )
    reply = engine.chat(request)
    said = [line for message in scene.messages for line in shown(message)]
    calls = [f"  model  {call.name} {json.dumps(call.arguments)}" for call in reply.tool_calls]
    text = [f"  model  {reply.content}"] if reply.content else []
    return [f"{scene.title} (tools: {', '.join(scene.tools)})", *said, *text, *calls]


def shown(message: dict[str, object]) -> list[str]:
    """A message of the conversation so far."""
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        functions = [call["function"] for call in calls]
        return [f"  model  {f['name']} {json.dumps(f['arguments'])}" for f in functions]
    return [f"  {message['role']:<5}  {message['content']}"]


def read_tools() -> list[Tool]:
    """The tools of demo_tools.json, which lies beside this file."""
    text = resources.files("edge").joinpath("examples/demo_tools.json").read_text(encoding="utf-8")
    functions = [tool["function"] for tool in json.loads(text)]
    return [Tool(f["name"], f["parameters"], f["description"]) for f in functions]


if __name__ == "__main__":
    sys.exit(main())
