"""A first tool call with a model file, in a process of its own: `python -m edge.deploy.smoke FILE`.

Loads the file as the service will, by its path, but with a small context. Exit code 1 and a line on standard error when
no valid call comes.
"""

from __future__ import annotations

from pathlib import Path

from edge.deploy.errors import DeployError
from edge.deploy.probe import CITIES, QUESTION, TOOL
from edge.engine.trial import run_trial

_N_CTX = 1024


def smoke_call(path: Path) -> None:
    """Raises an EdgeError when the model cannot be loaded or does not call."""
    from edge.engine.context import ContextOptions
    from edge.engine.engine import Engine
    from edge.engine.intake import examine_chat
    from edge.engine.request import ChatRequest
    from edge.grammar import parse_tools

    n_ctx = min(_N_CTX, examine_chat(path).header.number("context_length") or _N_CTX)
    with Engine(path, context=ContextOptions(n_ctx=n_ctx)) as engine:
        request = ChatRequest(
            messages=[{"role": "user", "content": QUESTION}],
            tools=parse_tools([TOOL]),
            tool_choice="required",
            max_tokens=200,
        )
        calls = engine.chat(request).tool_calls
    if not calls or calls[0].arguments.get("city") not in CITIES:
        raise DeployError("no tool call came back")


if __name__ == "__main__":
    run_trial(smoke_call)
