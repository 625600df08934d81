from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.chat.parser import CallText, OutputParser, StopHit
from edge.types import CallOpened, CallWithdrawn, ContentDelta, ContentWasReasoning, ReasoningDelta

CALL = '\n{"name": "f", "arguments": {"a": "x"}}\n'


def parse(text, *, cut=None, **options):
    """Events with neighbouring deltas of one kind joined, so that they can be compared whatever the cuts."""
    parser = OutputParser(**options)
    events = []
    step = cut or len(text) or 1
    for start in range(0, len(text), step):
        events += parser.feed(text[start : start + step])
    events += parser.finish()
    joined = []
    for event in events:
        if joined and isinstance(event, (ContentDelta, ReasoningDelta)) and type(event) is type(joined[-1]):
            joined[-1] = type(event)(joined[-1].text + event.text)
        else:
            joined.append(event)
    return joined


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there.", [ContentDelta("Hello there.")]),
        ("", []),
        ("  \n Hello \n", [ContentDelta("Hello")]),
        ("<think>hm</think>\n\nHi", [ReasoningDelta("hm"), ContentDelta("Hi")]),
        ("hm\n</think>\n\nHi", [ContentDelta("hm"), ContentWasReasoning(), ContentDelta("Hi")]),
        (f"<tool_call>{CALL}</tool_call>", [CallOpened(), CallText(CALL)]),
        (f"I look.\n<tool_call>{CALL}</tool_call>", [ContentDelta("I look."), CallOpened(), CallText(CALL)]),
        (
            f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>",
            [CallOpened(), CallText(CALL), CallOpened(), CallText(CALL)],
        ),
        ("<think>a <tool_call> b</think>c", [ReasoningDelta("a <tool_call> b"), ContentDelta("c")]),
        ("<think>never closed", [ReasoningDelta("never closed")]),
        ('x<tool_call>\n{"name": "f"', [ContentDelta("x"), CallOpened(), CallWithdrawn()]),
        ("a < b and <tool b", [ContentDelta("a < b and <tool b")]),
        ("ends with <tool_cal", [ContentDelta("ends with <tool_cal")]),
        ("<tool_call>not json</tool_call>ok", [CallOpened(), CallText("not json"), ContentDelta("ok")]),
    ],
)
def test_text_becomes_events_however_it_is_cut(text, expected):
    for cut in (None, 1, 2, 3, 7):
        assert parse(text, cut=cut) == expected


def test_a_closer_inside_a_json_string_does_not_end_the_call():
    call = '\n{"name": "f", "arguments": {"a": "</tool_call> \\" {"}}\n'
    assert parse(f"<tool_call>{call}</tool_call>", cut=1) == [CallOpened(), CallText(call)]


def test_thinking_that_the_template_opened_is_reasoning_from_the_first_character():
    text = f"so <tool_call>{CALL}</tool_call> no\n</think>\n\nHi"
    assert parse(text, cut=1, opens_thinking=True) == [
        ReasoningDelta(f"so <tool_call>{CALL}</tool_call> no"),
        ContentDelta("Hi"),
    ]


def test_a_second_think_tag_inside_thinking_is_dropped():
    assert parse("<think>a</think>b", opens_thinking=True) == [ReasoningDelta("a"), ContentDelta("b")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\n\ntwo", [ContentDelta("one"), StopHit("\n\n")]),
        ("one\ntwo", [ContentDelta("one\ntwo")]),
        ("<think>a\n\nb</think>c", [ReasoningDelta("a\n\nb"), ContentDelta("c")]),
    ],
)
def test_a_stop_string_ends_content_and_not_thinking(text, expected):
    for cut in (None, 1, 2):
        assert parse(text, cut=cut, stop=["\n\n"]) == expected


def test_the_longer_of_two_stops_at_one_place_wins():
    assert parse("ab END!", stop=["END", "END!"])[-1] == StopHit("END!")


TEXTS = st.lists(
    st.sampled_from(
        ["<tool_call>", "</tool_call>", "<think>", "</think>", "{", "}", '"', "\\", "a", " ", "\n", "<", "é"]
    )
).map("".join)


@given(text=TEXTS, cut=st.integers(1, 9))
def test_cutting_never_changes_the_events(text, cut):
    assert parse(text, cut=cut) == parse(text)


@given(text=TEXTS)
def test_no_tag_ever_leaks_into_content(text):
    content = "".join(event.text for event in parse(text) if isinstance(event, ContentDelta))
    assert "<tool_call>" not in content
    assert "</think>" not in content
