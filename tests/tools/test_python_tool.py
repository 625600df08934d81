"""`@tool`: functions as tools."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from edge.errors import ToolsError
from edge.grammar import compile_tool
from edge.tools.executable import CallContext, ToolResult
from edge.tools.python_tool import tool
from edge.tools.running import execute
from edge.tools.setup import ToolboxOptions, open_toolbox, python_tools


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


class Place(BaseModel):
    city: str
    country: str | None = None


@dataclass
class Point:
    x: int


@tool
def forecast(
    place: Place, day: date, unit: Unit = Unit.C, days: Annotated[int, Field(ge=1, le=7)] = 1
) -> str:
    """The weather to come.

    Longer text that the model does not see.

    Args:
        place: Where,
            in the world.
        day: The first day.
        days (int): How many.
    """
    return f"{place.city} {day:%d.%m.} {unit.name} {days}"


def run(function, **arguments):
    return execute(function, arguments, CallContext(5))


def test_name_description_and_schema_come_from_the_function():
    assert forecast.name == "forecast"
    assert forecast.tool.description == "The weather to come."
    schema = forecast.tool.parameters
    assert schema["required"] == ["place", "day"]
    assert schema["properties"]["place"]["description"] == "Where, in the world."
    assert schema["properties"]["days"] == {
        "default": 1, "description": "How many.", "maximum": 7, "minimum": 1, "type": "integer",
    }  # fmt: skip
    assert "title" not in str(schema)
    assert not compile_tool(forecast.tool).late_checks


def test_arguments_arrive_as_the_types_that_were_declared():
    result = run(forecast, place={"city": "Rome"}, day="2026-05-04", unit="fahrenheit", days=2)
    assert result == ToolResult("Rome 04.05. F 2")
    assert run(forecast, place={"city": "Rome"}, day="2026-05-04").text == "Rome 04.05. C 1"


def test_arguments_that_do_not_fit_are_an_error_for_the_model():
    assert run(forecast, place={"city": "Rome"}, day="2026-02-31").is_error


def test_the_function_can_still_be_called():
    assert forecast(Place(city="Rome"), date(2026, 5, 4)) == "Rome 04.05. C 1"


def test_what_is_no_text_is_json():
    @tool
    def points() -> list[Point]:
        return [Point(1)]

    assert run(points).text == '[{"x":1}]'


def test_the_context_is_not_the_models_business():
    @tool(effects=["write"], timeout_s=3, name="do_it", description="Does it.")
    def work(n: int, context: CallContext) -> str:
        """Not used."""
        context.progress("half")
        return str(n)

    assert list(work.tool.parameters["properties"]) == ["n"]
    assert (work.name, work.tool.description, work.effects, work.timeout_s) == (
        "do_it",
        "Does it.",
        {"write"},
        3,
    )
    seen = []
    assert execute(work, {"n": 1}, CallContext(5, seen.append)).text == "1"
    assert seen == ["half"]


def test_coroutines_are_tools():
    @tool
    async def wait(n: int) -> dict[str, int]:
        """Waits.

        :param n: how long
        """
        return {"n": n}

    assert run(wait, n=3).text == '{"n":3}'
    assert wait.tool.parameters["properties"]["n"]["description"] == "how long"


def test_a_title_that_is_a_parameter_stays():
    @tool
    def book(title: str, kind: Literal["novel", "poem"] = "novel") -> str:
        """A book."""
        return title

    assert list(book.tool.parameters["properties"]) == ["title", "kind"]


@pytest.mark.parametrize("bad", [
    lambda x: x,
    lambda *args: args,
    lambda **kwargs: kwargs,
])  # fmt: skip
def test_functions_without_types_are_refused(bad):
    with pytest.raises(ToolsError, match="the tool"):
        tool(bad)


def test_types_that_json_does_not_know_are_refused():
    def odd(x: object.__class__ | memoryview) -> str:
        return ""

    with pytest.raises(ToolsError, match="the tool odd"):
        tool(odd)


FILE = '''
from __future__ import annotations
from edge.tools.python_tool import tool

@tool
def double(n: int) -> int:
    """Twice as much."""
    return 2 * n
'''


def test_a_python_file_gives_its_tools(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "tools.toml").write_text('python = ["mine.py"]\nbuiltin = ["calculate"]\nworkspace = "."\n')
    with open_toolbox(ToolboxOptions(config=tmp_path / "tools.toml")) as toolbox:
        assert [found.name for found in toolbox] == ["calculate", "double"]
        assert run(toolbox.get("double"), n=4).text == "8"


@pytest.mark.parametrize(("text", "fault"), [
    ("1/0", "ZeroDivisionError"), ("x = 1", "no @tool function"), ("def (", "SyntaxError"),
    ("from edge.tools.python_tool import tool\n@tool\ndef f(x): pass", "has no type"),
])  # fmt: skip
def test_a_python_file_with_a_mistake_is_refused(tmp_path, text, fault):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ToolsError, match=fault):
        python_tools(tmp_path / "mine.py")
    with pytest.raises(ToolsError, match="cannot be read"):
        python_tools(tmp_path / "missing.py")
