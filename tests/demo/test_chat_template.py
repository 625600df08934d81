"""demo/chat_template.jinja: its exact text, and schemas that nobody expects."""

from __future__ import annotations

import pytest

from demo.packs import TEMPLATE
from edge.chat.template import ChatTemplate, render_prompt
from edge.grammar.tools import parse_tools

HELLO = [{"role": "user", "content": "Hello"}]


def rendered(messages: list[dict], tools: list[dict] = (), **options) -> str:
    template = ChatTemplate(TEMPLATE.read_text(encoding="utf-8"), "test")
    return render_prompt(template, messages, parse_tools(list(tools)), **options).text


def line_of(parameters: object, description: str = "") -> str:
    """How a tool is listed."""
    tool = {"name": "f", "description": description, "parameters": parameters}
    text = rendered(HELLO, [{"type": "function", "function": tool}])
    return text.partition("Tools:\n")[2].partition("<|im_end|>")[0]


def properties(**schemas: object) -> dict:
    return {"type": "object", "properties": schemas}


def test_a_whole_conversation():
    tool = {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "English name"},
                "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
            },
            "required": ["city"],
        },
    }
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln"}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Köln?"},
        {"role": "assistant", "content": "", "tool_calls": [call, {**call, "id": "2"}]},
        {"role": "tool", "tool_call_id": "1", "content": "8 degrees"},
        {"role": "tool", "tool_call_id": "2", "content": "9 degrees"},
    ]
    assert rendered(messages, [{"type": "function", "function": tool}]) == (
        "<|im_start|>system\nBe brief.\n\nTools:\n"
        'get_weather(city: string (English name), unit?: "celsius"|"kelvin"): Weather of a city<|im_end|>\n'
        "<|im_start|>user\nWeather in Köln?<|im_end|>\n"
        "<|im_start|>assistant\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n8 degrees<|im_end|>\n"
        "<|im_start|>tool\n9 degrees<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_without_system_text_and_tools_there_is_no_system_message():
    assert rendered(HELLO) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert rendered(HELLO, opens_answer=False) == "<|im_start|>user\nHello<|im_end|>\n"


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        (None, "f()"),
        ({}, "f()"),
        (True, "f()"),
        ({"type": "object"}, "f()"),
        (properties(a={}), "f(a?: {})"),
        (properties(a=True), "f(a?: any)"),
        (properties(a={"enum": [1, 2.5, None, "x", False]}), 'f(a?: 1|2.5|null|"x"|false)'),
        (properties(a={"type": ["string", "null"]}), 'f(a?: {"type": ["string", "null"]})'),
        (properties(a={"$ref": "#/$defs/x"}), 'f(a?: {"$ref": "#/$defs/x"})'),
        (
            properties(a={"anyOf": [{"type": "string"}, {"type": "integer"}], "description": "either"}),
            'f(a?: {"anyOf": [{"type": "string"}, {"type": "integer"}], "description": "either"} (either))',
        ),
        (properties(a={"type": "array"}), "f(a?: array)"),
        (properties(a={"type": "array", "items": {"type": "number"}}), "f(a?: [number])"),
        (properties(a={"type": "array", "items": True}), "f(a?: array)"),
        (
            properties(a={"type": "array", "items": properties(b={"type": "string", "format": "date"})}),
            "f(a?: [{b?: string date}])",
        ),
        (
            properties(a={**properties(b=properties(c={"type": "boolean"})), "required": ["b"]}),
            "f(a?: {b: {c?: boolean}})",
        ),
        (
            {**properties(items={"type": "integer"}, properties={"type": "string"}, required={"type": "boolean"}),
             "required": ["properties"]},
            "f(items?: integer, properties: string, required?: boolean)",
        ),
        (properties(keys={"type": "string"}, get={"type": "string"}), "f(keys?: string, get?: string)"),
        (properties(a={"const": 5}), 'f(a?: {"const": 5})'),
        (properties(a={"type": "string", "description": 5}), "f(a?: string)"),
    ],
)  # fmt: skip
def test_odd_schemas(parameters, line):
    assert line_of(parameters) == line


def test_a_description_of_a_tool_follows_its_parameters():
    assert line_of({}, "Does f.") == "f(): Does f."
