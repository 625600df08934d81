"""The `mcpServers` JSON file, in the form that other MCP clients use."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.errors import ToolsError
from edge.tools.config import expand
from edge.tools.policy import first_fault

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class McpServer(BaseModel):
    """One server: a command that talks over its pipes, or a URL (streamable HTTP).

    timeout_s, start_timeout_s and trust_annotations are this program's own; other clients pass over them. Keys that
    other clients have (`autoApprove`, `icon`...) are passed over here: what is asked about stands in the policy.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    cwd: str | None = None
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    type: str | None = None
    disabled: bool = False
    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    start_timeout_s: float = Field(default=60.0, gt=0, le=600)
    trust_annotations: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> McpServer:
        if (self.command is None) == (self.url is None):
            raise ValueError("exactly one of command and url is needed")
        if self.type == "sse":
            raise ValueError("the old SSE transport is not supported; stdio and streamable HTTP are")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url is {self.url!r}; an http or https address is needed")
        return self


def read_mcp_servers(path: Path, environment: Mapping[str, str] = os.environ) -> dict[str, McpServer]:
    """The servers of a file by name, without disabled ones. `${NAME}` in env, headers, url and args is expanded.

    Raises ToolsError naming the file, the server and what is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ToolsError(f"the MCP file {path} cannot be read: {exc.strerror}") from None
    except (ValueError, RecursionError) as exc:
        raise ToolsError(f"the MCP file {path} is not JSON: {exc}") from None
    servers = data.get("mcpServers", data.get("servers")) if isinstance(data, dict) else None
    if not isinstance(servers, dict):
        raise ToolsError(f'the MCP file {path} has no "mcpServers" object')
    found = {name: _server(path, name, value, environment) for name, value in servers.items()}
    return {name: server for name, server in found.items() if not server.disabled}


def _server(path: Path, name: str, value: object, environment: Mapping[str, str]) -> McpServer:
    where = f"the MCP file {path}, server {name!r}"
    if not _NAME.fullmatch(name):
        raise ToolsError(f"{where}: a name holds letters, digits, '_', '.' and '-'")
    try:
        server = McpServer.model_validate(value)
    except ValidationError as exc:
        raise ToolsError(f"{where}: {first_fault(exc)}") from None
    if server.disabled:
        return server
    return server.model_copy(
        update={
            "args": tuple(expand(arg, environment, where) for arg in server.args),
            "env": {key: expand(text, environment, where) for key, text in server.env.items()},
            "headers": {key: expand(text, environment, where) for key, text in server.headers.items()},
            "url": expand(server.url, environment, where) if server.url else None,
        }
    )
