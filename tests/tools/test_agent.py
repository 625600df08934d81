"""The agent loop, driven by a scripted engine."""

from __future__ import annotations

import threading
import time

import pytest

from edge.engine.request import ChatRequest
from edge.errors import ContextOverflow, EngineError
from edge.tools.agent import AgentDone, AgentOptions, ToolFinished, ToolProgress, ToolStarted, run_agent
from edge.tools.executable import ToolFailure, ToolResult
from edge.tools.policy import Policy, Rule
from edge.tools.toolbox import Toolbox
from edge.types import MalformedCall, Reply
from tests.tools.fakes import ScriptedEngine, make_tool


def go(engine, *tools, policy=None, messages=None, **options):
    """Runs the loop to its end: its events and the conversation."""
    messages = messages if messages is not None else [{"role": "user", "content": "do it"}]
    events = list(run_agent(engine, messages, Toolbox(tools), policy or Policy(), AgentOptions(**options)))
    assert isinstance(events[-1], AgentDone)
    return events, messages


def done(events):
    return events[-1]


echo = make_tool("echo", lambda arguments, context: f"<{arguments.get('text')}>")


def test_a_result_is_fed_back_and_the_answer_ends_the_run():
    engine = ScriptedEngine([("echo", {"text": "hi"})], "it said hi")
    events, messages = go(engine, echo)
    assert done(events).reason == "answer"
    assert done(events).reply.content == "it said hi"
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[2] == {"role": "tool", "name": "echo", "tool_call_id": "call_0", "content": "<hi>"}


def test_tools_of_one_answer_run_at_the_same_time():
    both = threading.Barrier(2, timeout=5)
    wait = make_tool("wait", lambda arguments, context: str(both.wait() >= 0))
    engine = ScriptedEngine([("wait", {"n": 1}), ("wait", {"n": 2})], "fine")
    go(engine, wait)
    assert engine.last_results == ["True", "True"]  # one after the other would break the barrier


def test_results_stand_in_the_order_of_the_calls():
    slow = make_tool("slow", lambda a, c: time.sleep(0.1) or "slow")
    engine = ScriptedEngine([("slow", {}), ("echo", {"text": "x"})], "fine")
    go(engine, slow, echo)
    assert engine.last_results == ["slow", "<x>"]


def test_an_error_is_fed_back_so_that_the_model_can_recover():
    def divide(arguments, context):
        if arguments["by"] == 0:
            raise ToolFailure("by must not be 0")
        return str(6 / arguments["by"])

    engine = ScriptedEngine([("divide", {"by": 0})], [("divide", {"by": 2})], "3")
    events, messages = go(engine, make_tool("divide", divide))
    assert messages[2]["content"] == "error: by must not be 0"
    assert messages[4]["content"] == "3.0"
    assert done(events).reason == "answer"


def test_an_exception_of_a_tool_is_an_error_for_the_model():
    engine = ScriptedEngine([("bad", {})], "sorry")
    go(engine, make_tool("bad", lambda a, c: {}["missing"]))
    assert engine.last_results == ["error: KeyError: 'missing'"]


def test_arguments_that_break_the_schema_do_not_reach_the_tool():
    strict = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    engine = ScriptedEngine([("count", {"n": "three"})], "sorry")
    go(engine, make_tool("count", lambda a, c: pytest.fail("was called"), parameters=strict))
    assert engine.last_results[0].startswith("error: the arguments are not valid: /n")


def test_an_unknown_tool_is_an_error_that_names_the_tools():
    engine = ScriptedEngine([("ecko", {})], "sorry")
    go(engine, echo)
    assert engine.last_results == ["error: there is no tool 'ecko'; there are: echo"]


def test_a_long_result_is_cut_and_says_so():
    engine = ScriptedEngine([("long", {})], "ok")
    events, _ = go(engine, make_tool("long", lambda a, c: "x" * 5000), max_result_chars=1000)
    assert engine.last_results[0] == "x" * 1000 + "\n[cut: the first 1000 of 5000 characters]"
    assert next(e for e in events if isinstance(e, ToolFinished)).result.cut


def test_the_step_limit_ends_the_run_with_a_last_answer_without_calls():
    engine = ScriptedEngine(*[[("echo", {"text": str(n)})] for n in range(3)], "that is all I have")
    events, _ = go(engine, echo, max_steps=3)
    assert (done(events).reason, done(events).n_steps) == ("step_limit", 3)
    assert done(events).reply.content == "that is all I have"
    assert [request.tool_choice for request in engine.requests] == ["auto", "auto", "auto", "none"]


def test_a_repeated_identical_call_is_not_run_and_ends_the_run():
    runs = []
    count = make_tool("count", lambda arguments, context: runs.append(1) or "1")
    engine = ScriptedEngine([("count", {"a": 1, "b": 2})], [("count", {"b": 2, "a": 1})], "one")
    events, _ = go(engine, count)
    assert done(events).reason == "repeated_call"
    assert len(runs) == 1
    assert "made before" in engine.last_results[0]


def test_reading_again_after_a_write_is_no_repetition():
    write = make_tool("write", lambda a, c: "ok", effects=["write"])
    engine = ScriptedEngine([("echo", {})], [("write", {})], [("echo", {})], "fine")
    events, _ = go(engine, echo, write, policy=Policy(assume_yes=True))
    assert (done(events).reason, done(events).n_steps) == ("answer", 3)


def test_the_same_call_twice_in_one_answer_runs_once():
    runs = []
    engine = ScriptedEngine([("count", {}), ("count", {})], "fine")
    events, _ = go(engine, make_tool("count", lambda a, c: runs.append(1) or "1"))
    assert len(runs) == 1
    assert done(events).reason == "answer"


def test_a_required_call_is_required_of_the_first_step_only():
    engine = ScriptedEngine([("echo", {})], "fine")
    go(engine, echo, request=ChatRequest(messages=(), tool_choice="required"))
    assert [request.tool_choice for request in engine.requests] == ["required", "auto"]


def test_malformed_calls_are_fed_back():
    bad = Reply("", "", (), "stop", malformed_calls=(MalformedCall("{", "not JSON"),))
    engine = ScriptedEngine(bad, "fine")
    go(engine, echo)
    assert "no valid call (not JSON)" in engine.last_results[0]


@pytest.mark.parametrize("effect", ["write", "send", "execute"])
def test_what_changes_something_is_denied_where_nobody_can_be_asked(effect):
    tool = make_tool("act", lambda a, c: pytest.fail("was called"), effects=[effect])
    engine = ScriptedEngine([("act", {})], "I may not")
    events, _ = go(engine, tool)
    assert engine.last_results == [
        "error: denied: this call needs the user's approval, and there is nobody who can be asked"
    ]
    assert not any(isinstance(event, ToolStarted) for event in events)


def test_the_user_is_asked_with_the_call_and_can_say_no_yes_and_always():
    asked = []
    answers = iter(["no", "yes", "always"])

    def approve(call, tool):
        asked.append(call.arguments)
        return next(answers)

    tool = make_tool("act", lambda a, c: "done", effects=["write"])
    engine = ScriptedEngine(*[[("act", {"n": n})] for n in range(4)], "fine")
    _, messages = go(engine, tool, approve=approve)
    assert asked == [{"n": 0}, {"n": 1}, {"n": 2}]  # the fourth is covered by always
    results = [m["content"] for m in messages if m["role"] == "tool"]
    assert results == ["error: denied: the user said no to this call", "done", "done", "done"]


def test_a_deny_rule_is_told_to_the_model_and_stronger_than_yes():
    tool = make_tool("act", lambda a, c: pytest.fail("was called"), effects=["write"])
    engine = ScriptedEngine([("act", {})], "I may not")
    go(engine, tool, policy=Policy(rule=(Rule(action="deny", tool="act"),), assume_yes=True))
    assert engine.last_results == ["error: denied by rule 1 of the policy; do not try it again"]


def test_progress_is_an_event():
    def work(arguments, context):
        context.progress("half")
        return "whole"

    events, _ = go(ScriptedEngine([("work", {})], "ok"), make_tool("work", work))
    assert [event.text for event in events if isinstance(event, ToolProgress)] == ["half"]


def test_a_tool_that_overruns_its_time_is_left_alone_and_the_model_is_told(monkeypatch):
    monkeypatch.setattr("edge.tools.running._GRACE_S", 0.1)
    release = threading.Event()
    hang = make_tool("hang", lambda a, c: str(release.wait(20)), timeout_s=0.1)
    engine = ScriptedEngine([("hang", {})], "too slow")
    started = time.monotonic()
    go(engine, hang)
    release.set()
    assert engine.last_results == ["error: timed out after 0.1 s"]
    assert time.monotonic() - started < 5


def test_a_tool_is_told_when_its_time_is_over():
    def work(arguments, context):
        stopped = threading.Event()
        context.on_cancel(stopped.set)
        return ToolResult("noticed" if stopped.wait(10) else "missed")

    engine = ScriptedEngine([("work", {})], "ok")
    go(engine, make_tool("work", work, timeout_s=0.1))
    assert engine.last_results == ["noticed"]


def test_an_asynchronous_tool_runs():
    async def work(arguments, context):
        return "awaited"

    engine = ScriptedEngine([("work", {})], "ok")
    go(engine, make_tool("work", work))
    assert engine.last_results == ["awaited"]


class InterruptingBox:
    """Raises KeyboardInterrupt in the main thread when the tool has started, as Ctrl-C does."""

    def __init__(self):
        self.cancelled = threading.Event()

    def __call__(self, arguments, context):
        import _thread

        context.on_cancel(self.cancelled.set)
        _thread.interrupt_main()
        return "late" if self.cancelled.wait(10) else "never"


def test_ctrl_c_stops_the_tool_and_keeps_the_conversation():
    work = InterruptingBox()
    engine = ScriptedEngine([("work", {}), ("echo", {"text": "x"})], "never asked")
    events, messages = go(engine, make_tool("work", work), echo)
    assert done(events).reason == "interrupted"
    assert work.cancelled.is_set()
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool"]
    assert messages[2]["content"] == "error: stopped by the user before it was finished"
    assert messages[3]["content"] in ("<x>", "error: stopped by the user before it was finished")
    engine.answers = ["going on"]
    events, messages = go(engine, echo, messages=[*messages, {"role": "user", "content": "and now?"}])
    assert done(events).reason == "answer"


def test_closing_the_run_in_the_middle_leaves_a_result_for_each_call():
    engine = ScriptedEngine([("echo", {"text": "a"})], "never")
    messages = [{"role": "user", "content": "x"}]
    events = run_agent(engine, messages, Toolbox([echo]), Policy())
    for event in events:
        if isinstance(event, ToolStarted):
            events.close()
    assert messages[-1]["role"] == "tool"
    assert messages[-1]["content"].startswith("error: stopped")


class NarrowEngine(ScriptedEngine):
    """Refuses prompts of more than so many characters."""

    def __init__(self, n_ctx, *answers):
        super().__init__(*answers)
        self.n_ctx = n_ctx

    def stream(self, request):
        size = sum(len(message["content"]) for message in request.messages)
        if size > self.n_ctx:
            raise ContextOverflow(size, self.n_ctx)
        return super().stream(request)


def test_results_that_do_not_fit_the_context_are_cut_further():
    engine = NarrowEngine(1000, [("long", {})], "ok")
    events, messages = go(engine, make_tool("long", lambda a, c: "x" * 5000))
    assert done(events).reason == "answer"
    assert messages[2]["content"].endswith("[cut: it did not fit the context]")


def test_a_question_that_does_not_fit_is_refused():
    with pytest.raises(ContextOverflow):
        go(NarrowEngine(3, "never"), echo)


def test_a_stream_without_a_reply_is_an_error():
    class Silent:
        def stream(self, request):
            return iter(())

    with pytest.raises(EngineError):
        go(Silent(), echo)


def test_a_required_call_without_tools_is_the_engines_to_refuse():
    engine = ScriptedEngine("fine")
    go(engine, request=ChatRequest(messages=(), tool_choice="required"))
    assert engine.requests[0].tool_choice == "required"
