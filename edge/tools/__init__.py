"""Tools that are executed: built-in ones, own functions, command lines, HTTP, MCP servers; and the agent loop.

    from edge.tools import AgentDone, Policy, Toolbox, run_agent, tool

Names are imported when they are first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers read it as True; see `edge`
if TYPE_CHECKING:
    from edge.tools.agent import AgentDone, AgentOptions, ToolFinished, ToolStarted, run_agent
    from edge.tools.executable import CallContext, ExecutableTool, ToolFailure, ToolResult
    from edge.tools.policy import Policy, Rule, read_policy
    from edge.tools.python_tool import tool
    from edge.tools.setup import ToolboxOptions, open_toolbox
    from edge.tools.toolbox import Toolbox
    from edge.tools.transcript import read_transcript, recorded, replay

_HOMES = {
    "AgentDone": "agent", "AgentOptions": "agent", "ToolFinished": "agent", "ToolStarted": "agent",
    "run_agent": "agent", "CallContext": "executable", "ExecutableTool": "executable", "ToolFailure": "executable",
    "ToolResult": "executable", "Policy": "policy", "Rule": "policy", "read_policy": "policy", "tool": "python_tool",
    "ToolboxOptions": "setup", "open_toolbox": "setup", "Toolbox": "toolbox", "read_transcript": "transcript",
    "recorded": "transcript", "replay": "transcript",
}  # fmt: skip
__all__ = [
    "AgentDone", "AgentOptions", "CallContext", "ExecutableTool", "Policy", "Rule", "ToolFailure", "ToolFinished",
    "ToolResult", "ToolStarted", "Toolbox", "ToolboxOptions", "open_toolbox", "read_policy", "read_transcript",
    "recorded", "replay", "run_agent", "tool",
]  # fmt: skip


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'edge.tools' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"edge.tools.{home}"), name)
