"""Brings the toolbox of a program together: built-in tools, the configuration's own, Python files, MCP servers."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from edge.errors import ToolsError
from edge.tools.builtin import builtin_tools, fetch_options
from edge.tools.config import ToolsConfig, read_config
from edge.tools.declared import declared_tool
from edge.tools.executable import ExecutableTool
from edge.tools.mcp_config import read_mcp_servers
from edge.tools.toolbox import Toolbox
from edge.tools.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolboxOptions:
    """Where tools come from. workspace: wins over the configuration's; without both, the current folder.

    builtin: names of built-in tools; wins over the configuration's; None for all.
    mcp_log: what MCP servers write to their standard error.
    """

    config: Path | None = None
    workspace: Path | None = None
    builtin: tuple[str, ...] | None = None
    mcp: Path | None = None
    mcp_log: TextIO | None = None


def open_toolbox(options: ToolboxOptions) -> Toolbox:
    """The toolbox; close it to end what its tools hold open. Raises ToolsError before anything is started."""
    config = read_config(options.config) if options.config else ToolsConfig()
    if options.builtin is not None:
        config = config.model_copy(update={"builtin": options.builtin})
    servers = read_mcp_servers(options.mcp) if options.mcp else {}
    with ExitStack() as stack:
        toolbox = stack.enter_context(Toolbox())
        workspace = Workspace(_workspace_folder(options, config))
        toolbox.on_close(workspace.close)
        for tool in builtin_tools(config, workspace):
            toolbox.add(tool)
        for declared in config.tool:
            toolbox.add(declared_tool(declared, workspace.folder, fetch_options(config)))
        for file in config.python:
            for tool in python_tools(Path(file)):
                toolbox.add(tool)
        if servers:
            from edge.tools.mcp_client import McpServers

            toolbox.on_close(McpServers(servers, toolbox, errlog=options.mcp_log).close)
        stack.pop_all()
    return toolbox


def _workspace_folder(options: ToolboxOptions, config: ToolsConfig) -> Path:
    if options.workspace is not None:
        return options.workspace
    if config.workspace is not None:
        return Path(config.workspace)
    folder = Path.cwd()
    if folder in (Path.home(), Path("/")):
        # Reading is not asked about: ~/.ssh would be one call away.
        raise ToolsError(
            f"the current folder is {folder}, too much to hand to a model; name a workspace folder"
        )
    return folder


def python_tools(file: Path) -> list[ExecutableTool]:
    """The `@tool` functions of a Python file, which is run. Raises ToolsError."""
    spec = importlib.util.spec_from_file_location(f"smoltools_edge_tools_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ToolsError(f"the Python file {file} cannot be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # type hints are looked up there
    try:
        spec.loader.exec_module(module)
    except ToolsError as exc:
        raise ToolsError(f"the Python file {file}: {exc}") from None
    except Exception as exc:
        raise ToolsError(f"the Python file {file} cannot be run: {type(exc).__name__}: {exc}") from exc
    found = [value for value in vars(module).values() if isinstance(value, ExecutableTool)]
    if not found:
        raise ToolsError(f"the Python file {file} holds no @tool function")
    return list({tool.name: tool for tool in found}.values())
