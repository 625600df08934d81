"""execute_python and shell_command, in the sandbox."""

from __future__ import annotations

from edge.tools.executable import Arguments, CallContext, ToolResult
from edge.tools.process import Outcome
from edge.tools.sandbox import SandboxOptions, python_program, run_sandboxed
from edge.tools.workspace import Workspace


def execute_python(
    workspace: Workspace, options: SandboxOptions, arguments: Arguments, context: CallContext
) -> ToolResult:
    """What the program printed."""
    argv = [python_program(), "-I", "-B", "/run/program"]
    code = str(arguments["code"]).encode("utf-8", "replace")
    return _result(run_sandboxed(argv, workspace.folder, options, context, program=code), "use print")


def shell_command(
    workspace: Workspace, options: SandboxOptions, arguments: Arguments, context: CallContext
) -> ToolResult:
    """What the command wrote."""
    argv = ["/bin/sh", "-c", str(arguments["command"])]
    return _result(run_sandboxed(argv, workspace.folder, options, context), "exit code 0")


def _result(outcome: Outcome, when_silent: str) -> ToolResult:
    parts = [outcome.output.rstrip("\n")] if outcome.output.strip() else []
    if outcome.cut:
        parts.append("[cut: there was more output]")
    if outcome.killed:
        parts.append(f"[stopped: {outcome.killed}]")
    elif outcome.exit_code:
        parts.append(f"[exit code {outcome.exit_code}]")
    failed = bool(outcome.killed or outcome.exit_code)
    return ToolResult("\n".join(parts) or f"(no output; {when_silent})", is_error=failed, cut=outcome.cut)
