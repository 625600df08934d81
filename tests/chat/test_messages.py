from __future__ import annotations

import pytest

from edge.chat.messages import normalize_messages
from edge.errors import RequestError


def call(arguments):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
    }


def test_arguments_as_openai_sends_them_become_an_object():
    [message] = normalize_messages([call('{"a": 1}')])
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": 1}


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert normalize_messages([{"role": "user", "content": parts}])[0]["content"] == "ab"


def test_developer_is_the_system_role():
    assert normalize_messages([{"role": "developer", "content": "x"}])[0]["role"] == "system"


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([], "no messages"),
        ([{"role": "robot", "content": "x"}], "message 0 has the role 'robot'"),
        ([{"role": "user"}], "message 0 has content of type NoneType"),
        ([{"role": "user", "content": 3}], "message 0 has content of type int"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a content part that is not text"),
        (
            [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}],
            "message 1 has the role system",
        ),
        ([call("{")], "message 0, tool call 0 (f) has arguments that are not JSON"),
        ([call("[]")], "arguments that are not an object"),
        ([{"role": "assistant", "tool_calls": [{}]}], "lacks function.name"),
        ([{"role": "assistant", "tool_calls": "f"}], "tool_calls of type str"),
        (["hello"], "message 0 is str"),
    ],
)
def test_a_bad_message_is_named(messages, found):
    with pytest.raises(RequestError) as error:
        normalize_messages(messages)
    assert found in str(error.value)
    assert "\n" not in str(error.value)
