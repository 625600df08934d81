"""read_file, write_file, list_directory, in the workspace."""

from __future__ import annotations

import os

from edge.tools.executable import Arguments, CallContext, ToolFailure, ToolResult
from edge.tools.text import shown_exactly
from edge.tools.workspace import Entry, Workspace

MAX_READ_BYTES = 4 << 20
DEFAULT_LINES, MAX_ENTRIES = 500, 500


def read_file(workspace: Workspace, arguments: Arguments, context: CallContext) -> ToolResult:
    """The lines asked for; says how to go on where the file does."""
    path = str(arguments["path"])
    start, most = _int(arguments, "start_line", 1), _int(arguments, "max_lines", DEFAULT_LINES)
    data, size = _read(workspace, path)
    if b"\0" in data[:8192]:
        raise ToolFailure(f"{shown_exactly(path)} is not a text file ({size} bytes)")
    lines = data.decode("utf-8", "replace").splitlines(keepends=True)
    if start > max(1, len(lines)):
        raise ToolFailure(f"{shown_exactly(path)} has {len(lines)} lines; start_line is {start}")
    chosen = lines[start - 1 : start - 1 + most]
    text = "".join(chosen)
    end = start - 1 + len(chosen)
    if end < len(lines) or len(data) < size:
        note = f"[cut: lines {start} to {end} of {len(lines)}{'+' if len(data) < size else ''}]"
        return ToolResult(f"{text.rstrip()}\n{note}", cut=True)
    return ToolResult(text or "(the file is empty)")


def _read(workspace: Workspace, path: str) -> tuple[bytes, int]:
    with workspace.open_file(path) as fd, os.fdopen(os.dup(fd), "rb") as file:
        return file.read(MAX_READ_BYTES), os.fstat(fd).st_size


def write_file(workspace: Workspace, arguments: Arguments, context: CallContext) -> str:
    """Writes a file; says how much."""
    path, content = str(arguments["path"]), str(arguments["content"])
    data = content.encode("utf-8", "replace")
    if arguments.get("mode") == "append":
        workspace.append_file(path, data)
        return f"appended {len(data)} bytes to {shown_exactly(path)}"
    workspace.replace_file(path, data)
    return f"wrote {len(data)} bytes to {shown_exactly(path)}"


def list_directory(workspace: Workspace, arguments: Arguments, context: CallContext) -> ToolResult:
    """A line for each name; folders end with a slash."""
    entries, n_all = workspace.entries(str(arguments.get("path") or "."), MAX_ENTRIES)
    if not entries:
        return ToolResult("(the folder is empty)")
    lines = [_line(entry) for entry in entries]
    if n_all > len(entries):
        lines.append(f"[cut: {len(entries)} of {n_all} names]")
    return ToolResult("\n".join(lines), cut=n_all > len(entries))


def _line(entry: Entry) -> str:
    name = entry.name if entry.name.isprintable() else shown_exactly(entry.name)
    if entry.kind == "directory":
        return f"{name}/"
    return f"{name}  {entry.size_bytes} bytes" if entry.kind == "file" else f"{name}  ({entry.kind})"


def _int(arguments: Arguments, name: str, default: int) -> int:
    value = arguments.get(name)
    return int(value) if isinstance(value, int | float) else default
