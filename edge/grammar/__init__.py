"""Tools' JSON Schemas as rules: GBNF text for llama.cpp, and the check of finished arguments.

parse_tools(value)     decoded JSON -> Tool values
compile_tool(tool)     Tool -> CompiledTool (.gbnf, .validate)
tool_name_gbnf(names)  GBNF of a call whose tool is not known yet
"""

from edge.grammar.compile import CompiledTool, compile_tool, tool_name_gbnf
from edge.grammar.tools import parse_tools

__all__ = ["CompiledTool", "compile_tool", "parse_tools", "tool_name_gbnf"]
