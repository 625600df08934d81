"""`@tool`: a Python function with type hints and a docstring becomes a tool; pydantic makes schema and values."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import to_json

from edge.errors import ToolsError
from edge.tools.executable import (
    Arguments,
    CallContext,
    Effect,
    ExecutableTool,
    ToolFailure,
    ToolFunction,
    ToolResult,
)
from edge.types import Tool

_ARGS_SECTION = re.compile(r"^(args|arguments|parameters):\s*$", re.IGNORECASE)
_GOOGLE_PARAM = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.+)$")
_REST_PARAM = re.compile(r"^:param\s+(?:[\w\[\], |]+\s+)?(\w+):\s*(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTool(ExecutableTool):
    """A tool made of a function; calling it calls the function."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """What the function returns."""
        return self.function(*args, **kwargs)


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, effects: Iterable[Effect] = (), timeout_s: float = 30.0
) -> Callable[[Callable[..., Any]], FunctionTool]: ...  # fmt: skip
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    effects: Iterable[Effect] = (),
    timeout_s: float = 30.0,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """The function as a tool.

    Its first paragraph is the description, `Args:` or `:param:` lines describe the parameters. A parameter annotated
    `CallContext` is not the model's: it gets the running call. effects: say so if it writes, sends or executes; the
    user is asked then. What it returns goes to the model as text, or as JSON if it is none.
    Raises ToolsError for a parameter without a type and for types that JSON cannot carry.
    """

    def make(function: Callable[..., Any]) -> FunctionTool:
        model, context_name = _model(function)
        text, _ = _described(function)
        return FunctionTool(
            tool=Tool(name or function.__name__, _schema(function, model), description or text),
            call=_caller(function, model, context_name),
            effects=frozenset(effects),
            timeout_s=timeout_s,
            function=function,
        )

    return make if function is None else make(function)


def _model(function: Callable[..., Any]) -> tuple[type[BaseModel], str | None]:
    """The arguments as a pydantic model, and the name of the parameter that takes the context."""
    where = f"the tool {function.__name__}"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as exc:
        raise ToolsError(f"{where}: {exc}; types must be known where the function stands") from None
    _, documented = _described(function)
    fields: dict[str, Any] = {}
    context_name = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ToolsError(f"{where}: {parameter} cannot be given by name; use plain parameters")
        if hints.get(parameter.name) is CallContext:
            context_name = parameter.name
            continue
        if parameter.name not in hints:
            raise ToolsError(f"{where}: the parameter {parameter.name} has no type")
        default = ... if parameter.default is parameter.empty else parameter.default
        described = documented.get(parameter.name)
        fields[parameter.name] = (hints[parameter.name], Field(default, description=described))
    try:
        return create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **fields), context_name
    except (PydanticUserError, NameError) as exc:
        raise ToolsError(f"{where}: {str(exc).splitlines()[0]}") from None


def _schema(function: Callable[..., Any], model: type[BaseModel]) -> dict[str, object]:
    try:
        return cast("dict[str, object]", _without_titles(model.model_json_schema()))
    except PydanticUserError as exc:
        raise ToolsError(f"the tool {function.__name__}: {str(exc).splitlines()[0]}") from None


def _without_titles(schema: object) -> object:
    """The schema without pydantic's titles, which repeat the names and cost tokens."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_titles(value) for name, value in item.items()}
        if key in ("properties", "$defs")
        else _without_titles(item)
        for key, item in schema.items()
        if not (key == "title" and isinstance(item, str))
    }


def _caller(function: Callable[..., Any], model: type[BaseModel], context_name: str | None) -> ToolFunction:
    def values(arguments: Arguments, context: CallContext) -> dict[str, Any]:
        try:
            checked = model.model_validate(arguments)
        except ValidationError as exc:
            error = exc.errors(include_url=False)[0]
            where = ".".join(str(step) for step in error["loc"])
            raise ToolFailure(f"{where}: {error['msg']}") from None
        given = {field: getattr(checked, field) for field in model.model_fields}
        return given | ({context_name: context} if context_name else {})

    def call(arguments: Arguments, context: CallContext) -> ToolResult | str | Awaitable[ToolResult | str]:
        result = function(**values(arguments, context))
        return _awaited(result) if inspect.isawaitable(result) else _outcome(result)

    return call


async def _awaited(result: Awaitable[Any]) -> ToolResult | str:
    return _outcome(await result)


def _outcome(value: object) -> ToolResult | str:
    if isinstance(value, ToolResult | str):
        return value
    return to_json(value, fallback=str).decode("utf-8", "replace")


def _described(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The first paragraph of the docstring, and the description of each parameter."""
    lines = inspect.cleandoc(function.__doc__ or "").splitlines()
    head = " ".join("\n".join(lines).split("\n\n")[0].split())
    found: dict[str, str] = {}
    in_section, last = False, ""
    for line in lines:
        text = line.strip()
        if _ARGS_SECTION.match(line):
            in_section = True
        elif match := _REST_PARAM.match(text) or (in_section and _GOOGLE_PARAM.match(text)):
            last = match.group(1)
            found[last] = match.group(2)
        elif in_section and line and not line.startswith(" "):
            in_section = False
        elif in_section and last and text:
            found[last] += f" {text}"
    return head, found
