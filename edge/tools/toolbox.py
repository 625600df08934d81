"""The tools of a run, by name. Tools may come and go while it runs: MCP servers change their lists."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

from edge.errors import ToolsError
from edge.grammar import compile_tool, parse_tools
from edge.tools.executable import ExecutableTool
from edge.types import Tool


class Toolbox:
    """Names to executable tools, in the order they were added. Closing it ends what the tools hold open."""

    def __init__(self, tools: Iterable[ExecutableTool] = ()) -> None:
        self._tools: dict[str, ExecutableTool] = {}
        self._lock = threading.Lock()
        self._closers = ExitStack()
        self.notes: list[str] = []  # tools that were left out, and why
        for tool in tools:
            self.add(tool)

    def add(self, tool: ExecutableTool) -> None:
        """Adds a tool. Raises ToolsError for a name that is taken, UnsupportedSchema for a schema."""
        parse_tools([tool.tool.to_openai()])  # a name that a model may be shown
        compile_tool(tool.tool)
        with self._lock:
            if tool.name in self._tools:
                other = self._tools[tool.name].source
                raise ToolsError(
                    f"two tools are called {tool.name!r}, of {other} and of {tool.source}; names must differ"
                )
            self._tools[tool.name] = tool

    def replace_source(self, source: str, tools: Iterable[ExecutableTool]) -> None:
        """Takes out all tools of a source and adds these; the ones that stay keep their place.

        A name that another source has is not taken over.
        """
        with self._lock:
            others = {name for name, tool in self._tools.items() if tool.source != source}
            new = {tool.name: tool for tool in tools if tool.name not in others}
            kept = {n: new.get(n, t) for n, t in self._tools.items() if t.source != source or n in new}
            self._tools = kept | {name: tool for name, tool in new.items() if name not in kept}

    def get(self, name: str) -> ExecutableTool | None:
        """The tool of this name, if there is one."""
        with self._lock:
            return self._tools.get(name)

    def only(self, names: Iterable[str]) -> Toolbox:
        """A toolbox with these tools alone, in this order; it shares the tools and closes nothing."""
        chosen = Toolbox()
        with self._lock:
            chosen._tools = {name: self._tools[name] for name in names if name in self._tools}
        return chosen

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What is offered to the model."""
        return tuple(tool.tool for tool in self)

    def __iter__(self) -> Iterator[ExecutableTool]:
        with self._lock:
            return iter(list(self._tools.values()))

    def __len__(self) -> int:
        return len(self._tools)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Registers what ends with the toolbox."""
        self._closers.callback(callback)

    def close(self) -> None:
        """Ends what the tools hold open. Safe to call twice."""
        self._closers.close()

    def __enter__(self) -> Toolbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
