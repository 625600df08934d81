"""Phase 2 and both phases together, each branch driven by a scripted policy model."""

from __future__ import annotations

import json

import pytest

from edge.errors import OpenWorldError
from edge.tools.executable import ExecutableTool, ToolFailure
from edge.tools.open_world.acting import OpenWorldDone, act, given, run_open_world
from edge.tools.open_world.simulator import Recording, Simulator
from edge.tools.policy import Policy as Permissions
from edge.types import MalformedCall, Tool
from tests.tools.open_world.conftest import (
    BROKEN,
    MAIL,
    PROFILE,
    WEATHER,
    Policy,
    Shelf,
    call,
    chosen,
    overflow,
)

ALLOW = Permissions(default="allow")
FINISH = [call("Finish", return_type="give_answer", final_answer="It rains.")]
SIMULATOR = Simulator([Recording("get_weather", {"city": "Oslo"}, {"sky": "rain"})])


def simulated(entry):
    return SIMULATOR.executable(entry.tool)


def run(*script, tools=(WEATHER, MAIL), profile=PROFILE, runnable=simulated, permissions=ALLOW):
    policy = Policy(*script)
    *_, done = act(policy, "Weather in Oslo?", given(tools), runnable, permissions, profile)
    assert isinstance(done, OpenWorldDone)
    assert policy.script == []
    return policy, done


def test_calls_until_finish():
    policy, done = run([call("get_weather", city="Oslo")], FINISH)
    assert (done.outcome, done.answer, done.n_steps) == ("finished", "It rains.", 2)
    assert json.loads(policy.said_to(1)) == {"error": "", "response": {"sky": "rain"}}
    assert [(made.call.name, made.valid, made.ok) for made in done.calls] == [("get_weather", True, True)]
    assert [tool.name for tool in policy.requests[0].tools] == ["get_weather", "send_mail", "Finish"]


def test_the_second_phase_is_a_conversation_of_its_own():
    policy = Policy("<search>weather", chosen("get_weather"), FINISH)
    *_, done = run_open_world(policy, "Weather?", Shelf(), simulated, ALLOW, PROFILE)
    assert done.outcome == "finished"
    acting = policy.requests[2]
    assert [message["role"] for message in acting.messages] == ["system", "user"]
    assert acting.messages[1]["content"] == "Weather?"
    assert [tool.name for tool in acting.tools] == ["get_weather", "Finish"]  # the chosen one alone
    assert acting.stop == ()


def test_what_does_not_fit_the_context_ends_it():
    _, done = run(overflow())
    assert (done.outcome, done.calls) == ("overflow", ())


def test_giving_up():
    _, done = run([call("Finish", return_type="give_up_and_restart")])
    assert (done.outcome, done.answer, done.calls) == ("gave_up", "", ())


def test_an_error_is_observed_and_the_model_goes_on():
    def fails(entry):
        def function(arguments, context):
            raise ToolFailure("the service is down")

        return ExecutableTool(tool=entry.tool, call=function)

    policy, done = run([call("get_weather", city="Oslo")], FINISH, runnable=fails)
    assert policy.said_to(1) == "error: the service is down"
    assert [(made.valid, made.ok) for made in done.calls] == [(True, False)]
    assert done.outcome == "finished"


def test_arguments_that_are_not_valid_are_observed():
    policy, done = run([call("get_weather", town="Oslo")], FINISH)
    assert policy.said_to(1).startswith("error: the arguments are not valid")
    assert [(made.valid, made.ok) for made in done.calls] == [(False, False)]


def test_a_tool_that_was_not_chosen_cannot_be_called():
    policy, done = run([call("send_mail")], FINISH, tools=[WEATHER])
    assert "there is no tool 'send_mail'" in policy.said_to(1)
    assert [(made.valid, made.ok) for made in done.calls] == [(False, False)]


def test_observations_are_cut():
    def wordy(entry):
        return ExecutableTool(tool=entry.tool, call=lambda arguments, context: "x" * 5000)

    policy, _ = run([call("get_weather", city="Oslo")], FINISH, runnable=wordy)
    observation = policy.said_to(1)
    assert observation.startswith("x" * 1024 + "\n[cut: ")
    assert len(observation) < 1100


def test_steps_are_bounded():
    calls = [[call("get_weather", city=f"Town {n}")] for n in range(12)]
    _, done = run(*calls)
    assert (done.outcome, done.n_steps, len(done.calls)) == ("step_limit", 12, 12)


def test_the_same_call_again_ends_it():
    same = [call("get_weather", city="Oslo")]
    _, done = run(same, same)
    assert done.outcome == "repeated_call"


def test_an_answer_without_finish_is_asked_for_it():
    policy, done = run("It rains.", FINISH)
    assert "Finish with your answer" in policy.said_to(1)
    assert (done.outcome, done.n_malformed, done.n_steps) == ("finished", 1, 2)


def test_answers_without_finish_are_bounded():
    _, done = run("It rains.", "It rains!", "Rain.")
    assert (done.outcome, done.answer, done.n_malformed) == ("answered", "Rain.", 3)


def test_a_malformed_call_is_observed_and_counted():
    policy, done = run([MalformedCall("{", "not JSON")], FINISH)
    assert "no valid call" in policy.said_to(1)
    assert (done.n_malformed_calls, done.outcome) == (1, "finished")


def test_without_a_tool_that_can_be_called_there_is_nothing_to_do():
    for tools, runnable in [((), simulated), ((BROKEN,), simulated), ((MAIL,), lambda entry: None)]:
        _, done = run(tools=tools, runnable=runnable)
        assert (done.outcome, done.n_steps) == ("no_tools", 0)


def test_nothing_found_means_nothing_done():
    policy = Policy(*["<search>nonsense"] * 4)
    *_, done = run_open_world(policy, "Weather?", Shelf(), simulated, ALLOW, PROFILE)
    assert (done.outcome, done.chosen.how, done.chosen.n_rounds) == ("no_tools", "nothing", 4)


def test_what_the_policy_denies_is_not_run():
    def writing(entry):
        return ExecutableTool(tool=entry.tool, call=lambda a, c: "sent", effects=frozenset({"send"}))

    policy, done = run([call("send_mail", to="a")], FINISH, runnable=writing, permissions=Permissions())
    assert policy.said_to(1).startswith("error: denied")
    assert [(made.valid, made.ok) for made in done.calls] == [(True, False)]


def test_a_tool_called_like_finish_is_refused():
    twin = type(WEATHER)("x", Tool("Finish", {"type": "object"}))
    with pytest.raises(OpenWorldError, match="called 'Finish'"):
        run(tools=[twin])


def test_a_simulated_tool_answers_the_same_to_the_same_call_and_fails_as_often_as_asked():
    tool = Simulator(error_rate=0.3).executable(MAIL.tool)
    results = [tool.call({"to": str(n)}, None) for n in range(400)]
    assert results == [
        Simulator(error_rate=0.3).executable(MAIL.tool).call({"to": str(n)}, None) for n in range(400)
    ]
    assert 0.2 < sum(result.is_error for result in results) / 400 < 0.4
    assert len({result.text for result in results if not result.is_error}) > 200
