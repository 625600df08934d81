"""MCP servers as tools, by the official SDK: one event loop in a thread, one task for each server.

A server's task holds its connection; a server that died is started anew by the next call. What a server says about its
tools (`readOnlyHint`) is believed only where the configuration says so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TextIO, TypeVar

from edge.errors import ToolsError, UnsupportedSchema
from edge.grammar import compile_tool, parse_tools
from edge.tools.executable import Arguments, CallContext, Effect, ExecutableTool, ToolFailure, ToolResult
from edge.tools.mcp_config import McpServer
from edge.tools.text import for_model, without_escapes
from edge.tools.toolbox import Toolbox
from edge.types import Tool

T = TypeVar("T")
_CLOSE_S = 10.0
MAX_TOOLS = 1_000  # of one server; a list that never ends is cut here
log = logging.getLogger(__name__)


class McpServers:
    """The servers of a file, connected; their tools go into a toolbox and follow the servers' changes.

    Servers start side by side. One that does not start is a note in the toolbox, not the end of the program.
    """

    def __init__(
        self, servers: Mapping[str, McpServer], toolbox: Toolbox, *, errlog: TextIO | None = None
    ) -> None:
        _check_installed()
        self._toolbox = toolbox
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._listed: dict[str, list[Any]] = {name: [] for name in servers}
        self._connections = {
            name: _Connection(name, server, self._changed, errlog) for name, server in servers.items()
        }
        self._start()

    def _start(self) -> None:
        starting = [self._submit(connection.ensure()) for connection in self._connections.values()]
        try:
            for future in starting:
                try:
                    future.result()
                except ToolFailure as exc:
                    self._toolbox.notes.append(str(exc))
        except BaseException:
            self.close()
            raise

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _changed(self, server: str, tools: list[Any]) -> None:
        """A server's list is new; the names of all are worked out again, as collisions may have come or gone."""
        with self._lock:
            self._listed[server] = tools
            taken = {tool.name for tool in self._toolbox if not tool.source.startswith("mcp:")}
            names = _names(self._listed, taken)
            for name in self._listed:
                self._toolbox.replace_source(f"mcp:{name}", list(self._executables(name, names[name])))

    def _executables(self, server: str, names: Mapping[str, str]) -> Iterable[ExecutableTool]:
        connection = self._connections[server]
        for listed in self._listed[server]:
            # A description stands in the system block: it must not be able to end it.
            tool = Tool(
                names[listed.name], _harmless(listed.input_schema), for_model(listed.description or "")
            )
            try:
                parse_tools([tool.to_openai()])
                compile_tool(tool)
            except (UnsupportedSchema, ToolsError) as exc:
                note = f"MCP server {server}: {exc}; the tool is left out"
                if note not in self._toolbox.notes:
                    self._toolbox.notes.append(note)
                continue
            yield ExecutableTool(
                tool=tool,
                call=self._caller(connection, listed.name),
                effects=_effects(listed, connection.server),
                source=f"mcp:{server}",
                timeout_s=connection.server.timeout_s,
            )

    def _caller(self, connection: _Connection, name: str) -> Callable[[Arguments, CallContext], ToolResult]:
        def call(arguments: Arguments, context: CallContext) -> ToolResult:
            future = self._submit(connection.call(name, arguments, context))
            context.on_cancel(lambda: _cancel(future))
            try:
                # Somewhat longer than the session's own timeout, which tells the server.
                return future.result(context.remaining_s + 5)
            except (concurrent.futures.CancelledError, TimeoutError):
                raise ToolFailure("the call was cancelled") from None

        return call

    def close(self) -> None:
        """Ends the servers. Safe to call twice."""
        if self._loop.is_closed():
            return
        closing = [self._submit(connection.close()) for connection in self._connections.values()]
        concurrent.futures.wait(closing, _CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


class _Connection:
    """One server: connected on demand, by a task of its own, which the SDK's cancel scopes need. Runs in the loop."""

    def __init__(
        self, name: str, server: McpServer, changed: Callable[[str, list[Any]], None], errlog: TextIO | None
    ) -> None:
        self.name, self.server = name, server
        self._changed = changed
        # Not our standard error: what a server writes there could be made to look like a question of ours.
        self._errlog = errlog or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - closed in close
        self._owns_errlog = errlog is None
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False  # the server has closed the connection
        self._stop = asyncio.Event()
        self._lock = asyncio.Lock()
        self._relisting: set[asyncio.Task[None]] = set()

    async def ensure(self) -> Any:  # noqa: ANN401 - an mcp.Client
        """The connected client; starts the server if it does not run. Raises ToolFailure."""
        async with self._lock:
            if self._client is None:
                await self._connect()
            return self._client

    async def _connect(self) -> None:
        self._stop, self._closed = asyncio.Event(), False
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ready.add_done_callback(
            lambda future: future.cancelled() or future.exception()
        )  # it may come too late
        self._task = asyncio.create_task(self._hold(ready, self._stop))
        try:
            self._client = await asyncio.wait_for(asyncio.shield(ready), self.server.start_timeout_s)
            await asyncio.wait_for(self._list(self._client), self.server.start_timeout_s)
        except TimeoutError:
            await self._drop()
            raise ToolFailure(
                f"MCP server {self.name} did not answer within {self.server.start_timeout_s:g} s"
            ) from None
        except Exception as exc:  # noqa: BLE001 - the SDK raises many kinds, and groups of them
            await self._drop()
            raise ToolFailure(f"MCP server {self.name} cannot be used: {_why(exc)}") from None

    async def _hold(self, ready: asyncio.Future[Any], stop: asyncio.Event) -> None:
        """Keeps the connection until it is to end. Its errors go to whoever waits for `ready`."""
        try:
            async with self._open_client() as client:
                ready.set_result(client)
                await self._listen(client, stop)
        except BaseException as exc:  # noqa: BLE001 - handed on, or of a connection that nobody uses any more
            if not ready.done():
                ready.set_exception(exc if isinstance(exc, Exception) else ToolFailure("it was stopped"))
            else:
                log.debug("MCP server %s ended: %s", self.name, _why(exc))

    async def _listen(self, client: Any, stop: asyncio.Event) -> None:  # noqa: ANN401
        """Waits for the end. Servers of the newer protocol tell of changes only to those who subscribe."""
        from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
        from mcp.shared.exceptions import MCPError

        async def subscribe() -> None:
            with contextlib.suppress(ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError):
                async with client.listen(tools_list_changed=True) as events:
                    async for _ in events:
                        await self._list(client)

        subscription = asyncio.create_task(subscribe())
        try:
            await stop.wait()
        finally:
            subscription.cancel()
            with contextlib.suppress(BaseException):
                await subscription

    @asynccontextmanager
    async def _open_client(self) -> AsyncIterator[Any]:
        import mcp_types
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        async def on_message(message: object) -> None:
            if isinstance(message, mcp_types.ToolListChangedNotification):
                # Not awaited here: the answer would wait behind this very message.
                task = asyncio.create_task(self._relist())
                self._relisting.add(task)
                task.add_done_callback(self._relisting.discard)

        info = mcp_types.Implementation(name="smoltools-edge", version="1")
        options: dict[str, Any] = {"message_handler": on_message, "client_info": info, "cache": None}
        if self.server.url is not None:
            async with (
                create_mcp_http_client(headers=dict(self.server.headers)) as http,
                Client(
                    self._watched(streamable_http_client(self.server.url, http_client=http)), **options
                ) as client,
            ):
                yield client
        else:
            async with Client(self._watched(self._stdio()), **options) as client:
                yield client

    def _stdio(self) -> Any:  # noqa: ANN401 - a transport of the SDK
        from mcp.client.stdio import StdioServerParameters, stdio_client

        assert self.server.command is not None
        # The SDK passes on HOME, PATH and their like, and nothing else of our environment.
        parameters = StdioServerParameters(
            command=self.server.command, args=list(self.server.args), env=self.server.env, cwd=self.server.cwd
        )
        return stdio_client(parameters, self._errlog)

    async def _relist(self) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._list(self._client), self.server.start_timeout_s)

    async def _list(self, client: Any) -> None:  # noqa: ANN401
        tools: list[Any] = []
        cursor = None
        while len(tools) < MAX_TOOLS:
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if not cursor or not page.tools:
                break
        self._changed(self.name, tools[:MAX_TOOLS])

    async def call(self, tool: str, arguments: Arguments, context: CallContext) -> ToolResult:
        """The result of a call; a server that has died since its last call is started once more. Raises ToolFailure."""
        was_running = self._client is not None
        try:
            return await self._call(await self.ensure(), tool, arguments, context)
        except _ServerDied as exc:
            await self._drop()
            # A call that died under way may have done its work; only one that never arrived is made again.
            if not was_running or exc.under_way:
                raise ToolFailure(
                    f"MCP server {self.name} died during the call; it will be restarted"
                ) from None
        try:
            return await self._call(await self.ensure(), tool, arguments, context)
        except _ServerDied:
            await self._drop()
            raise ToolFailure(f"MCP server {self.name} died again") from None

    async def _call(self, client: Any, tool: str, arguments: Arguments, context: CallContext) -> ToolResult:  # noqa: ANN401
        from mcp.shared.exceptions import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            share = f"{progress:g}/{total:g}" if total else f"{progress:g}"
            context.progress(f"{share} {message or ''}".strip())

        if self._closed:
            raise _ServerDied(under_way=False)
        try:
            result = await client.call_tool(
                tool, arguments, read_timeout_seconds=context.remaining_s, progress_callback=on_progress
            )
        except MCPError as exc:
            if exc.code == CONNECTION_CLOSED:
                raise _ServerDied(under_way=True) from None
            if exc.code == REQUEST_TIMEOUT:
                raise ToolFailure(f"MCP server {self.name} did not answer in time") from None
            raise ToolFailure(f"MCP server {self.name}: {exc.message}") from None
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 - results that break the protocol, streams that broke
            raise ToolFailure(f"MCP server {self.name}: {_why(exc)}") from None
        return ToolResult(_result_text(result), is_error=bool(result.is_error))

    @asynccontextmanager
    async def _watched(self, transport: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - a transport of the SDK
        """The transport; notices when the other side closes it, so that no call is lost in a dead connection."""
        import anyio

        async with transport as (incoming, outgoing), anyio.create_task_group() as tasks:
            send, receive = anyio.create_memory_object_stream[Any](0)

            async def pump() -> None:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    async with send:
                        async for message in incoming:
                            await send.send(message)
                self._closed = True

            tasks.start_soon(pump)
            yield receive, outgoing
            tasks.cancel_scope.cancel()

    async def _drop(self) -> None:
        """Ends the connection and its process."""
        self._client = None
        self._stop.set()
        task, self._task = self._task, None
        if task is None:
            return
        done, _ = await asyncio.wait([task], timeout=_CLOSE_S / 2)
        if not done:
            task.cancel()
            await asyncio.wait([task], timeout=_CLOSE_S / 2)

    async def close(self) -> None:
        """Ends the server."""
        for task in self._relisting:
            task.cancel()
        await self._drop()
        if self._owns_errlog:
            self._errlog.close()


def _cancel(future: concurrent.futures.Future[Any]) -> None:
    future.cancel()


class _ServerDied(Exception):
    """The connection is gone. under_way: the call may have reached the server."""

    def __init__(self, *, under_way: bool) -> None:
        super().__init__("the connection is gone")
        self.under_way = under_way


def _check_installed() -> None:
    try:
        import mcp.client  # noqa: F401
    except ImportError:
        raise ToolsError("MCP servers need the package mcp; install smoltools-edge[mcp]") from None


def _names(listed: Mapping[str, list[Any]], taken: set[str]) -> dict[str, dict[str, str]]:
    """For each server its tools' names here: their own, or `server__tool` where another tool is called the same.

    Both of two servers are prefixed, so that none can pass for the other.
    """
    owners: dict[str, int] = {}
    for tools in listed.values():
        for tool in tools:
            owners[tool.name] = owners.get(tool.name, 0) + 1
    return {
        server: {
            tool.name: f"{server}__{tool.name}" if owners[tool.name] > 1 or tool.name in taken else tool.name
            for tool in tools
        }
        for server, tools in listed.items()
    }


def _harmless(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """The schema with the chat markup in its descriptions broken up."""
    if isinstance(schema, list):
        return [_harmless(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: for_model(value)
        if key in ("description", "title", "$comment") and isinstance(value, str)
        else _harmless(value)
        for key, value in schema.items()
    }


def _effects(listed: Any, server: McpServer) -> frozenset[Effect]:  # noqa: ANN401
    hints = listed.annotations
    if server.trust_annotations and hints is not None and hints.read_only_hint:
        return frozenset({"read"})
    return frozenset({"execute"})


def _result_text(result: Any) -> str:  # noqa: ANN401
    """The result's texts; what is no text is named."""
    parts = [_block_text(block) for block in result.content]
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    return "\n".join(parts) or "(no output)"


def _block_text(block: Any) -> str:  # noqa: ANN401
    if block.type == "text":
        return str(block.text)
    if block.type == "resource" and hasattr(block.resource, "text"):
        return str(block.resource.text)
    if block.type == "resource_link":
        return f"[resource {block.uri}]"
    return f"[{block.type} that is not text]"


def _why(exc: BaseException) -> str:
    """One line about an exception, or about the first in a group of them."""
    while isinstance(exc, BaseExceptionGroup) and exc.exceptions:
        exc = exc.exceptions[0]
    text = str(exc) or type(exc).__name__
    return without_escapes(text.splitlines()[0])[:300]
