"""Tools' JSON Schemas as rules: GBNF text for llama.cpp, a matcher in Python, and the check of finished arguments.

parse_tools(value)      decoded JSON -> Tool values; read_tools(path) is the same for a file
compile_tool(tool)      Tool -> CompiledTool (.gbnf, .matcher, .validate, .late_checks, .early_fault)
compile_schema(schema)  the same for a bare JSON value
tool_name_gbnf(names)   GBNF of a call whose tool is not known yet; tool_name_matcher is its matcher
"""

from edge.grammar.build import LateCheck
from edge.grammar.compile import (
    CompiledSchema,
    CompiledTool,
    compile_schema,
    compile_tool,
    tool_name_gbnf,
    tool_name_matcher,
)
from edge.grammar.matcher import Matcher, Position
from edge.grammar.tools import parse_tools, read_tools

__all__ = [
    "CompiledSchema",
    "CompiledTool",
    "LateCheck",
    "Matcher",
    "Position",
    "compile_schema",
    "compile_tool",
    "parse_tools",
    "read_tools",
    "tool_name_gbnf",
    "tool_name_matcher",
]
