"""Phase 1, each branch driven by a scripted policy model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.engine.request import ChatRequest, plan_tools
from edge.tools.open_world.finding import Chosen, Faulted, Searched, find_tools
from edge.tools.open_world.selection import names_in
from edge.types import ToolCall
from tests.tools.open_world.conftest import CALLS, PROFILE, WEATHER, Policy, Shelf, chosen, overflow

BASE = ChatRequest(messages=(), max_tokens=77)


def find(*script, profile=PROFILE, shelf=None):
    policy = Policy(*script)
    events = list(find_tools(policy, BASE, "What is the weather?", shelf or Shelf(), profile))
    own = [event for event in events if isinstance(event, Searched | Faulted | Chosen)]
    assert isinstance(own[-1], Chosen)
    assert policy.script == []
    return policy, own


def names(end):
    return [tool.tool.name for tool in end.tools]


def test_a_search_and_a_choice():
    shelf = Shelf()
    _, events = find(
        "I need this.\n<search>weather and mail", chosen('["send_mail", "get_weather"]'), shelf=shelf
    )
    assert events[0] == Searched("weather and mail", ("w/get_weather", "m/send_mail"))
    assert names(events[-1]) == ["send_mail", "get_weather"]  # in the order of the choice
    assert (events[-1].how, events[-1].n_rounds, events[-1].n_steps, events[-1].n_faults) == (
        "chosen",
        1,
        2,
        0,
    )
    assert shelf.queries == [("weather and mail", 5)]


def test_what_the_model_is_given():
    policy, _ = find("<search>weather", chosen('["get_weather"]'))
    first, second = policy.requests
    assert (first.stop, first.max_tokens, list(first.revealed_tools)) == (("</search>",), 77, [])
    assert "5 tools" in first.messages[0]["content"]
    assert "search 4 times" in first.messages[0]["content"]
    assert first.messages[1]["content"] == "What is the weather?"
    assert second.messages[:2] == first.messages
    assert second.messages[2] == {"role": "assistant", "content": "<search>weather</search>"}
    shown = second.messages[3]["content"]
    assert shown.startswith("<information>\n{")
    assert shown.endswith("}\n</information>")
    assert 500 < len(shown) < 750  # the long description is cut
    assert second.tools == ()  # the template is not given the choice, the prompt describes it
    assert [tool.tool.name for tool in plan_tools(second).callable] == ["select_tools"]
    assert second.grammar is False


def test_a_search_without_a_result_is_said_and_may_be_tried_again():
    policy, events = find("<search>nonsense", "<search>weather", chosen("get_weather"))
    assert events[0] == Searched("nonsense", ())
    assert "No tool fits" in policy.said_to(1)
    assert (names(events[-1]), events[-1].n_rounds) == (["get_weather"], 2)


def test_tools_that_were_shown_are_not_shown_again():
    policy, _ = find("<search>weather", "<search>weather mail", chosen("send_mail"))
    assert "Weather of a city" not in policy.said_to(2)
    assert "Send a mail" in policy.said_to(2)
    assert "(seen above: get_weather)" in policy.said_to(2)


def test_an_unknown_tool_is_refused_with_the_names_that_there_are():
    policy, events = find("<search>weather", chosen('["teleport"]'), chosen('["get_weather"]'))
    assert isinstance(events[1], Faulted)
    assert "no tool called teleport" in policy.said_to(2)
    assert "get_weather" in policy.said_to(2)
    assert (names(events[-1]), events[-1].n_faults) == (["get_weather"], 1)


def test_of_a_choice_with_unknown_names_the_known_ones_count():
    _, events = find("<search>weather", chosen('["teleport", "get_weather"]'))
    assert names(events[-1]) == ["get_weather"]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("I think the answer is 42.", "neither a search nor a choice"),
        ("<search>  ", "The search is empty"),
        ("search: weather", "neither a search nor a choice"),
        (chosen('["get_weather"]'), "No tools were found yet"),
        ("<tool_call>[]</tool_call>", "No tools were found yet"),
        ("", "neither a search nor a choice"),
    ],
)
def test_a_malformed_step_is_said_and_may_be_mended(step, said):
    policy, events = find(step, "<search>weather", chosen("get_weather"))
    assert said in policy.said_to(1)
    assert (names(events[-1]), events[-1].n_faults, events[-1].n_steps) == (["get_weather"], 1, 3)


def test_malformed_steps_are_bounded():
    _, events = find("no", "no", "no")
    assert (events[-1].how, events[-1].tools, events[-1].n_faults) == ("nothing", (), 3)


def test_searches_are_bounded_and_the_last_one_says_so():
    policy, events = find(*["<search>mail"] * 4, chosen("send_mail"))
    assert "That was the last search" not in policy.said_to(3)
    assert policy.said_to(4).endswith("That was the last search. Choose the tools now.")
    assert (events[-1].n_rounds, events[-1].n_faults, events[-1].how) == (4, 0, "chosen")


def test_a_model_that_never_stops_searching_goes_on_with_what_it_found():
    shelf = Shelf()
    policy, events = find(*["<search>weather mail"] * 7, shelf=shelf)
    assert len(shelf.queries) == 4
    assert "no searches left" in policy.said_to(5)
    assert (names(events[-1]), events[-1].how) == (["get_weather", "send_mail"], "fallback")


def test_without_the_fallback_it_ends_with_nothing():
    _, events = find(*["<search>mail"] * 7, profile=PROFILE.model_copy(update={"fall_back_to_found": False}))
    assert (events[-1].tools, events[-1].how, events[-1].found) == ((), "nothing", ("m/send_mail",))


def test_when_no_search_found_anything_there_is_nothing_to_choose():
    _, events = find(*["<search>nonsense"] * 4)
    assert (events[-1].how, events[-1].n_rounds, events[-1].n_steps) == ("nothing", 4, 4)


def search(query):
    return [ToolCall("c", "search_tools", {"query": query})]


def select(*names):
    return [ToolCall("c", "select_tools", {"tools": list(names)})]


def allowed(request):
    """What a request leaves the model: the names that it may call."""
    return [tool.tool.name for tool in plan_tools(request).callable]


def test_with_calls_a_search_and_a_choice():
    policy, events = find(search("weather mail"), select("send_mail"), profile=CALLS)
    assert events[0] == Searched("weather mail", ("w/get_weather", "m/send_mail"))
    assert (names(events[-1]), events[-1].n_faults) == (["send_mail"], 0)
    first, second = policy.requests
    assert (allowed(first), allowed(second)) == (["search_tools"], ["search_tools", "select_tools"])
    assert (first.grammar, plan_tools(first).forced, first.stop) == (True, True, ())
    assert [message["role"] for message in second.messages] == ["system", "user", "assistant", "tool"]
    assert second.messages[2]["tool_calls"][0]["function"]["name"] == "search_tools"
    choice = plan_tools(second).callable[1]
    assert choice.validate({"tools": ["get_weather"]}) is None
    assert choice.validate({"tools": ["teleport"]}) is not None
    assert choice.validate({"tools": []}) is not None


def test_with_calls_the_prompt_s_beginning_does_not_change_with_what_is_found():
    policy, _ = find(search("weather"), search("mail"), select("send_mail"), profile=CALLS)
    assert len({tuple(tool.name for tool in request.tools) for request in policy.requests}) == 1


def test_with_calls_nothing_but_a_choice_is_left_behind_the_last_search():
    policy, events = find(*[search("mail")] * 4, select("send_mail"), profile=CALLS)
    assert [allowed(request) for request in policy.requests[3:]] == [
        ["search_tools", "select_tools"],
        ["select_tools"],
    ]
    assert events[-1].how == "chosen"


def test_with_calls_one_that_does_not_fit_is_a_fault():
    _, events = find("", search("mail"), select("send_mail"), profile=CALLS)
    assert (events[-1].n_faults, names(events[-1])) == (1, ["send_mail"])


def test_with_calls_results_are_shortened_too():
    policy, _ = find(search("weather"), overflow(), select("get_weather"), profile=CALLS)
    assert policy.requests[2].messages[3]["content"] == "<information>\nget_weather\n</information>"
    assert policy.requests[2].messages[3]["role"] == "tool"


def test_other_tags_and_limits_come_from_the_profile():
    tags = PROFILE.tags.model_copy(update={"search": ("[[", "]]"), "information": ("{{", "}}")})
    profile = PROFILE.model_copy(update={"tags": tags, "top_k": 1, "max_rounds": 1})
    shelf = Shelf()
    policy, _ = find("[[weather mail", chosen("get_weather"), profile=profile, shelf=shelf)
    assert shelf.queries == [("weather mail", 1)]
    assert policy.requests[0].stop == ("]]",)
    assert policy.said_to(1).startswith("{{\n")


def test_results_that_do_not_fit_the_context_lose_their_descriptions_first():
    policy, events = find("<search>weather", overflow(), chosen("get_weather"))
    assert names(events[-1]) == ["get_weather"]
    assert policy.requests[2].messages[3]["content"] == "<information>\nget_weather\n</information>"


def test_where_nothing_can_be_shortened_the_phase_ends_with_what_there_is():
    _, events = find("<search>weather", overflow(), overflow())
    assert (events[-1].how, names(events[-1])) == ("fallback", ["get_weather"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["a", "b"]', ["a", "b"]),
        ('{"tools": ["a", "b"]}', ["a", "b"]),
        ('{"name": "select_tools", "arguments": {"tools": ["b", "a"]}}', ["b", "a"]),
        ('{"name": "a", "arguments": {}}', ["a"]),
        ('{"name": "a"}\n{"name": "b"}', ["a", "b"]),
        ('[{"name": "a"}, {"name": "b"}]', ["a", "b"]),
        ('{"function": {"name": "a"}}', ["a"]),
        ("a, b", ["a", "b"]),
        ("a\nb\n", ["a", "b"]),
        ("1. a\n2) b\n- c", ["a", "b", "c"]),
        ("`a`; 'b'", ["a", "b"]),
        ('["a", "a", "b"]', ["a", "b"]),
        ("[a, b]", []),  # neither JSON nor plain names
        ("I choose the first one", []),
        ("{", []),
        ("", []),
        ("[" * 50_000, []),
    ],
)  # fmt: skip
def test_names_of_a_choice(text, expected):
    assert names_in(text) == expected


def test_the_conversation_of_the_phase_only_grows():
    policy, _ = find("hm", "<search>nonsense", "<search>weather", chosen("get_weather"))
    for before, after in zip(policy.requests, policy.requests[1:], strict=False):
        assert after.messages[: len(before.messages)] == before.messages
    assert replace(policy.requests[0], messages=()) == replace(
        BASE, stop=("</search>",), grammar=False, parallel_tool_calls=False
    )


def test_of_two_tools_of_one_name_the_better_one_is_taken():
    class Twins:
        def find(self, query, k):
            return [WEATHER, replace(WEATHER, id="other/get_weather")]

    policy, events = find("<search>weather", chosen("get_weather"), shelf=Twins())
    assert [tool.id for tool in events[-1].tools] == ["w/get_weather"]
    assert policy.said_to(1).count("get_weather") == 1
