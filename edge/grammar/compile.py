"""From a tool to what the engine needs of it: GBNF text and the check of its arguments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar, cast

from edge.errors import UnsupportedSchema
from edge.grammar.build import LateCheck, build_call, build_value
from edge.grammar.gbnf import to_gbnf
from edge.grammar.json_text import ANY_CHAR, dumps, one_of
from edge.grammar.kept import KEPT
from edge.grammar.matcher import Matcher
from edge.grammar.rules import Grammar, Lit, Repeat, seq
from edge.grammar.validate import Check
from edge.types import Schema, Tool

T = TypeVar("T", bound="CompiledSchema")


@dataclass(frozen=True)
class CompiledSchema:
    """A schema with the rules of the texts that satisfy it. key: what it is kept under."""

    key: str
    schema: Schema
    grammar: Grammar
    late_checks: tuple[LateCheck, ...]  # what the rules do not hold fully; `validate` does

    @cached_property
    def gbnf(self) -> str:
        """The rules for llama.cpp; its `root` is the whole text."""
        return to_gbnf(self.grammar)

    @cached_property
    def matcher(self) -> Matcher:
        """The reader of the same rules in Python. Its memory is shared by all who use it; see `Matcher`."""
        return Matcher(self.grammar, on_growth=partial(KEPT.grew, self.key))

    @cached_property
    def _check(self) -> Check:
        return Check(self.schema)

    def validate(self, value: object) -> str | None:
        """What breaks the schema in a decoded value, in one line, or None."""
        return self._check.fault(value)

    def early_fault(self, text: str, *, is_whole: bool = False) -> str | None:
        """What breaks the schema in a text so far, whatever follows, or None. is_whole: nothing can follow.

        Worth asking only where there are `late_checks`: the rules hold the rest. A token after which there is a
        fault is to be refused. The text is the start of one that follows the rules. Costs a validation.
        """
        return self._check.early_fault(
            text + " " if is_whole else text
        )  # a number is open up to what follows it


@dataclass(frozen=True)
class CompiledTool(CompiledSchema):
    """A tool with the rules of the text that follows `<tool_call>` when it is called.

    The text is `\\n{"name": "NAME", "arguments": ARGS}\\n</tool_call>`; `validate` takes the arguments alone.
    """

    tool: Tool

    def early_fault(self, text: str, *, is_whole: bool = False) -> str | None:
        """As for a schema; the text is the call's from behind `<tool_call>` on, so that no value is its end."""
        opening = f'\n{{"name": {dumps(self.tool.name)}, "arguments": '
        return super().early_fault(text[len(opening) :].removesuffix("}\n</tool_call>"))


def compile_tool(tool: Tool, *, declared_only: bool = False) -> CompiledTool:
    """The tool's rules, kept for later calls with the same name and schema.

    declared_only: no arguments beside those that the schema names, unless it speaks of others. JSON Schema allows
    any; a small model rather invents than needs them.
    Raises UnsupportedSchema for a constraint that cannot be enforced, or that nothing satisfies.
    """

    key = _digest(tool.name, tool.name, tool.parameters, tool.description, declared_only)

    def make() -> CompiledTool:
        built = build_call(tool, declared_only=declared_only)
        return CompiledTool(key, tool.parameters, built.grammar, built.late_checks, tool)

    return _remembered(key, make)


def compile_schema(schema: Schema, *, name: str = "response_format") -> CompiledSchema:
    """The rules of a bare JSON value, kept for later calls. `name` stands for the tool in messages.

    Raises UnsupportedSchema as `compile_tool` does.
    """

    key = _digest(name, None, schema, name)

    def make() -> CompiledSchema:
        built = build_value(name, schema)
        return CompiledSchema(key, schema, built.grammar, built.late_checks)

    return _remembered(key, make)


def _remembered(key: str, make: Callable[[], T]) -> T:
    if (known := KEPT.get(key)) is not None:
        return cast(T, known)
    compiled = make()
    KEPT.put(key, compiled)
    return compiled


def _digest(name: str, *parts: object) -> str:
    """Names the schema by its content. Property order counts: it is the order in which arguments are written."""
    try:
        text = json.dumps(parts, default=dict)
    except RecursionError:
        raise UnsupportedSchema(name, "", "schema", "nested too deeply") from None
    except (TypeError, ValueError) as exc:
        raise UnsupportedSchema(name, "", "schema", f"not JSON: {exc}") from None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def tool_name_gbnf(names: Sequence[str]) -> str:
    """GBNF of a call whose tool is unknown: `\\n{"name": "`, one of the names, `"`, then any text."""
    return to_gbnf(_name_grammar(names))


def tool_name_matcher(names: Sequence[str]) -> Matcher:
    """The reader of the same texts in Python."""
    return Matcher(_name_grammar(names))


def _name_grammar(names: Sequence[str]) -> Grammar:
    words = one_of(dumps(name)[1:] for name in names)
    return Grammar({"root": seq(Lit('\n{"name": "'), words, Repeat(ANY_CHAR, 0, None))}, "root")
