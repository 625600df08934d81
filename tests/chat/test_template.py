from __future__ import annotations

import pytest

from edge.chat.template import ChatTemplate, hermes_template, render_prompt
from edge.errors import TemplateError
from edge.types import Tool

WEATHER = Tool(
    "get_weather", {"type": "object", "properties": {"city": {"type": "string"}}}, "Wetter für <Städte>"
)
USER = {"role": "user", "content": "Hi"}


def render(source, messages=(USER,), tools=(), **options):
    return render_prompt(ChatTemplate(source, "test"), messages, tools, **options).text


def test_hermes_puts_the_system_text_before_the_tool_block():
    text = render_prompt(
        hermes_template(), [{"role": "system", "content": "Be brief."}, USER], [WEATHER]
    ).text
    assert text == (
        "<|im_start|>system\nBe brief.\n\n# Tools\n\nYou may call one or more functions to assist with the user query."
        "\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "get_weather", "description": "Wetter für <Städte>", '
        '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}'
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
        '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
        "</tool_call><|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_hermes_writes_a_round_of_calls_as_the_model_was_trained_to():
    calls = [{"function": {"name": n, "arguments": {"city": n}}} for n in ("a", "b")]
    results = [{"role": "tool", "content": c} for c in ("1", "2")]
    messages = [USER, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
    assert render_prompt(hermes_template(), messages).text == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>\n{"name": "a", "arguments": {"city": "a"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "b", "arguments": {"city": "b"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_default_system_text_gives_way_to_the_conversation_s():
    template = hermes_template('Say "yes".')
    assert render_prompt(template, [USER]).text.startswith('<|im_start|>system\nSay "yes".<|im_end|>\n')
    own = [{"role": "system", "content": "No."}, USER]
    assert render_prompt(template, own).text.startswith("<|im_start|>system\nNo.<|im_end|>\n")


def test_tojson_is_that_of_transformers():
    text = render("{{ {'b': '<é>', 'a': 1} | tojson }} {{ [1] | tojson(indent=2) }}")
    assert text == '{"b": "<é>", "a": 1} [\n  1\n]'


def test_blocks_are_trimmed_as_transformers_trims_them():
    assert render("{% if true %}\n  {% for m in messages %}\nx\n  {% endfor %}\n{% endif %}\n") == "x\n"


def test_a_prompt_that_ends_in_think_opens_thinking():
    closed = "{% if enable_thinking is defined and not enable_thinking %}A<think>\n\n</think>\n\n"
    source = closed + "{% else %}A<think>\n{% endif %}"
    template = ChatTemplate(source, "test")
    assert render_prompt(template, [USER]).opens_thinking is True
    assert render_prompt(template, [USER], enable_thinking=False).opens_thinking is False


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("{% for %}", "cannot be read"),
        ("{{ raise_exception('no user query') }}", "no user query"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ ().__class__.__bases__[0].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% for i in range(999999999) %}x{% endfor %}", "Range too big"),
        ("x" * 200_001, "200001 characters"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_one_line(source, found):
    with pytest.raises(TemplateError) as error:
        render(source)
    assert found in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (hermes_template().source, "hermes"),
        ("{% for t in tools %}<tool_call>\n<function=f>\n<parameter=p>", "xml"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "none"),
        ("{{ tools }} [TOOL_CALLS]", "none"),
    ],
)
def test_the_tool_format_is_read_off_the_template(source, expected):
    assert ChatTemplate(source, "test").tool_format == expected
