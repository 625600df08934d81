"""From a tool to what the engine needs of it: GBNF text and the check of its arguments."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from edge.grammar.build import build
from edge.grammar.gbnf import to_gbnf
from edge.grammar.json_text import ANY_CHAR, dumps, one_of
from edge.grammar.rules import Grammar, Lit, Repeat, seq
from edge.grammar.validate import argument_check
from edge.types import Tool

CACHE_SIZE = 512


@dataclass(frozen=True)
class CompiledTool:
    """A tool with the rules of the text that follows `<tool_call>` when it is called."""

    tool: Tool
    grammar: Grammar

    @cached_property
    def gbnf(self) -> str:
        """GBNF whose `root` is `\\n{"name": "NAME", "arguments": ARGS}\\n</tool_call>`."""
        return to_gbnf(self.grammar)

    @cached_property
    def _check(self) -> Callable[[object], str | None]:
        return argument_check(self.tool.parameters)

    def validate(self, arguments: object) -> str | None:
        """What breaks the schema in decoded arguments, in one line, or None."""
        return self._check(arguments)


_cache: OrderedDict[str, CompiledTool] = OrderedDict()
_lock = Lock()


def compile_tool(tool: Tool) -> CompiledTool:
    """The tool's rules, kept for later calls with the same name and schema.

    Raises UnsupportedSchema for a constraint that cannot be enforced.
    """
    key = _digest(tool)
    with _lock:
        if (known := _cache.get(key)) is not None:
            _cache.move_to_end(key)
            return known
    compiled = CompiledTool(tool, build(tool))
    with _lock:
        _cache[key] = compiled
        while len(_cache) > CACHE_SIZE:
            _cache.popitem(last=False)
    return compiled


def _digest(tool: Tool) -> str:
    """Property order counts: it is the order in which arguments are written."""
    text = json.dumps([tool.name, tool.parameters, tool.description])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def tool_name_gbnf(names: Sequence[str]) -> str:
    """GBNF of a call whose tool is unknown: `\\n{"name": "`, one of the names, `"`, then any text."""
    words = one_of(dumps(name)[1:] for name in names)
    root = seq(Lit('\n{"name": "'), words, Repeat(ANY_CHAR, 0, None))
    return to_gbnf(Grammar({"root": root}, "root"))
