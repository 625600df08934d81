"""Several answers at once on tiny models: each is what it would be alone, and none can hold up or spoil another."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
import time

import psutil
import pytest

from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.engine.request import ChatRequest, CompletionRequest
from edge.engine.sampling import SamplingOptions
from edge.engine.scheduler import _shares
from edge.errors import (
    DeadlineExceeded,
    EngineClosed,
    EngineError,
    QueueFull,
    RequestCancelled,
)
from edge.types import ContentDelta, PrefillProgress, Reply, Tool
from tests.engine.conftest import ARCHITECTURES, SHORT

pytestmark = pytest.mark.model

GREEDY = SamplingOptions(temperature=0.0)
PICK = Tool(
    "pick",
    {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "s": {"enum": ["red", "green"]}},
        "required": ["n", "s"],
        "additionalProperties": False,
    },
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def engine(request, tiny_files):
    # With F32 and without flash attention a step's size moves logits by 1e-6 and not by 1e-2: no choice depends on it.
    options = ContextOptions(n_ctx=512, n_batch=64, n_threads=1, kv_type="f32", flash_attn=False)
    with Engine(
        tiny_files[request.param], chat_template=SHORT, context=options, n_parallel=4, max_queue=2
    ) as engine:
        yield engine


def say(text="hello", **options):
    options = {"sampling": GREEDY, "max_tokens": 30, **options}
    return ChatRequest(messages=[{"role": "user", "content": text}], **options)


def endless(text="hello", max_tokens=450):
    """A continuation that its grammar does not let end."""
    return CompletionRequest(prompt=text, max_tokens=max_tokens, sampling=GREEDY, gbnf="root ::= [a-z] root")


def wait_until(condition, seconds=10.0):
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end, "that took too long"
        time.sleep(0.001)


def idle(engine):
    wait_until(lambda: engine.stats().n_sequences_free == 4 and engine.stats().queued == 0)


def outcome(reply):
    return reply.content, [(c.name, c.arguments) for c in reply.tool_calls], reply.finish_reason


def test_an_answer_among_four_is_the_answer_alone(engine):
    requests = [
        say("one", max_tokens=60),
        say("something else that is longer", tools=[PICK], tool_choice="required", max_tokens=120),
        say("third", response_format={"type": "json_schema", "json_schema": {"schema": {"enum": [1, "x"]}}}),
        say("fourth " * 15, max_tokens=50),
    ]
    alone = [outcome(engine.chat(request)) for request in requests]
    running = [engine.submit(request) for request in requests]
    together = [outcome(list(r.events())[-1]) for r in running]
    assert together == alone


def test_a_seed_gives_the_same_answer_alone_and_beside_others(engine):
    request = say("dice", sampling=SamplingOptions(temperature=1.3, seed=7), max_tokens=40)
    alone = engine.chat(request).content
    others = [engine.submit(endless(f"noise {i}")) for i in range(3)]
    assert engine.chat(request).content == alone
    for other in others:
        other.cancel()


def test_more_than_may_wait_are_refused_with_a_time_to_try_again(engine):
    idle(engine)
    release = threading.Event()
    first = engine.submit(endless("first"), on_event=lambda event: release.wait(10) and None)
    try:
        accepted = [engine.submit(say(f"n {i}")) for i in range(5)]
        with pytest.raises(QueueFull) as caught:
            engine.submit(say("too many"))
        assert (caught.value.max_queue, caught.value.retry_after_s >= 1) == (2, True)
    finally:
        release.set()
    assert all(isinstance(list(running.events())[-1], Reply) for running in accepted)
    idle(engine)
    assert engine.chat(say("again")).usage.completion_tokens > 0
    assert first.why_stopped() is None


@pytest.mark.parametrize("n_events", [0, 1, 5])
def test_a_cancelled_answer_frees_its_sequence_and_the_others_go_on(engine, n_events):
    expected = engine.chat(say("stays", max_tokens=80)).content
    idle(engine)
    stays, goes = engine.submit(say("stays", max_tokens=80)), engine.submit(endless("goes"))
    events = goes.events()
    for _ in range(n_events):
        next(events)
    goes.cancel()
    with pytest.raises(RequestCancelled):
        list(events)
    assert list(stays.events())[-1].content == expected
    idle(engine)


def test_a_prompt_is_given_up_in_the_middle(engine):
    before = engine.stats().cancelled
    running = engine.submit(say("x" * 450, cache_prompt=False))
    events = running.events()
    assert isinstance(next(events), PrefillProgress)
    events.close()
    idle(engine)
    assert engine.stats().cancelled == before + 1


def test_an_answer_that_waits_can_be_cancelled(engine):
    at_work = [engine.submit(endless(f"w {i}")) for i in range(4)]
    waiting = engine.submit(say("never"))
    waiting.cancel()
    with pytest.raises(RequestCancelled):
        list(waiting.events())
    for running in at_work:
        running.cancel()
    idle(engine)


def test_a_stream_that_nobody_reads_any_more_is_given_up(engine):
    before = engine.stats().cancelled
    engine.stream(endless())  # dropped before its first event
    gc.collect()
    idle(engine)
    assert engine.stats().cancelled == before + 1


def test_a_deadline_ends_an_answer_and_one_that_waits(engine):
    late = [engine.submit(endless(f"late {i}"), deadline_s=0.05) for i in range(5)]
    for running in late:
        with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
            list(running.events())
    idle(engine)


def test_a_long_prompt_does_not_stop_the_answers_beside_it(engine):
    seen: list[str] = []
    done = threading.Event()
    writer = engine.submit(endless("writing"), on_event=lambda e: seen.append(type(e).__name__))
    wait_until(lambda: len(seen) > 3)

    def note(event):
        seen.append("progress" if isinstance(event, PrefillProgress) else "other")
        if not isinstance(event, PrefillProgress):
            done.set()

    engine.submit(CompletionRequest(prompt="y" * 400, max_tokens=1, sampling=GREEDY), on_event=note)
    assert done.wait(10)
    writer.cancel()
    idle(engine)
    between = seen[seen.index("progress") : seen.index("other")]
    assert between.count("progress") >= 400 // 16 - 2  # in pieces of 16 beside the answer
    assert between.count("ContentDelta") >= between.count("progress") - 2


def test_prompts_share_a_step_so_that_the_oldest_gets_on_and_a_short_one_gets_through():
    class Waiting:
        def __init__(self, n_pending):
            self.n_pending = n_pending

    old, long, short = Waiting(1000), Waiting(500), Waiting(10)
    assert _shares([old, long, short], 64) == [(old, 32), (short, 10), (long, 22)]
    assert _shares([old], 64) == [(old, 64)]
    assert _shares([Waiting(5), short], 64)[0][1] + 10 == 64
    assert _shares([], 64) == _shares([old], 0) == []


def test_a_caller_s_function_that_fails_ends_its_own_answer_alone(engine):
    def fail(event):
        raise ValueError("mine")

    expected = engine.chat(say("beside", max_tokens=60)).content
    engine.submit(endless("bad"), on_event=fail)
    assert engine.chat(say("beside", max_tokens=60)).content == expected
    idle(engine)


def test_an_answer_that_fails_leaves_the_others_and_the_engine_as_they_are(engine, monkeypatch):
    expected = engine.chat(say("beside", max_tokens=60)).content
    idle(engine)
    failed = engine.stats().failed
    tree = engine._scheduler._grammars.tree
    with monkeypatch.context() as patch:
        patch.setattr(tree, "roots", tree.roots[:0])  # a vocabulary that cannot write a call
        beside = engine.submit(say("beside", max_tokens=60))
        with pytest.raises(EngineError):
            engine.chat(say("call", tools=[PICK], tool_choice="required", force_text=False, max_tokens=200))
        assert list(beside.events())[-1].content == expected
    idle(engine)
    assert engine.stats().failed == failed + 1
    assert engine.chat(say("call", tools=[PICK], tool_choice="required", max_tokens=200)).tool_calls


def test_a_step_that_fails_is_told_to_all_and_the_engine_goes_on(engine, monkeypatch):
    def fail(runs):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(engine.context, "decode", fail)
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            engine.chat(say("now"))
    assert engine.chat(say("now")).usage.completion_tokens > 0
    idle(engine)


def test_a_step_that_takes_long_shows_and_none_shows_when_there_is_nothing_to_do(engine, monkeypatch):
    wait_until(lambda: engine.stats().step_s == 0)
    hold, decode = threading.Event(), engine.context.decode
    monkeypatch.setattr(engine.context, "decode", lambda runs: (hold.wait(10), decode(runs)))
    running = engine.submit(say(max_tokens=2))
    wait_until(lambda: engine.stats().step_s > 0.2)
    hold.set()
    list(running.events())
    wait_until(lambda: engine.stats().step_s == 0)


def test_an_answer_that_cannot_be_begun_is_told_so(engine, monkeypatch):
    def fail(reuse, busy):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(engine._scheduler._slots, "place", fail)
        with pytest.raises(EngineError, match="MemoryError"):
            engine.chat(say("now"))
    assert engine.chat(say("now")).usage.completion_tokens > 0
    idle(engine)


def test_many_answers_with_some_given_up_leave_nothing_behind(engine):
    rng = random.Random(1)

    def one(i):
        tools = {"tools": [PICK], "tool_choice": "required", "max_tokens": 60} if i % 6 == 0 else {}
        request = say(f"{i} " * rng.randint(1, 40), **({"max_tokens": rng.randint(1, 20)} | tools))
        running = engine.submit(request)
        if i % 10 == 0:
            time.sleep(rng.random() * 0.005)
            running.cancel()
        return running

    def many(n):
        for start in range(0, n, 6):
            for running in [one(i) for i in range(start, start + 6)]:
                with contextlib.suppress(RequestCancelled):
                    list(running.events())
        idle(engine)

    many(12)
    before, resident = engine.stats(), psutil.Process().memory_info().rss
    many(60)
    after = engine.stats()
    assert after.requests - before.requests == 60
    assert after.finished + after.cancelled - before.finished - before.cancelled == 60
    assert after.failed == before.failed
    assert psutil.Process().memory_info().rss < 1.02 * resident + (2 << 20)
    assert not engine._scheduler._active
    assert not engine._scheduler._not_on_disk
    assert sum(len(slot.tokens) for slot in engine.context.slots) <= engine.context.n_cells


def test_totals_count_what_the_replies_say(engine):
    before = engine.stats()
    replies = [
        engine.chat(say(f"count {i}", tools=[PICK], tool_choice="required", max_tokens=90)) for i in range(3)
    ]
    after = engine.stats()
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "forced_tokens"):
        assert getattr(after, name) - getattr(before, name) == sum(getattr(r.usage, name) for r in replies)
    assert after.calls - before.calls == sum(len(r.tool_calls) for r in replies)
    assert after.finished - before.finished == 3


@pytest.fixture
def own_engine(tiny_files):
    engine = Engine(
        tiny_files["llama"], chat_template=SHORT, context=ContextOptions(n_ctx=512, n_threads=1), n_parallel=2
    )
    yield engine
    engine.close()


def test_closing_lets_answers_finish_within_the_grace_time_and_refuses_new_ones(own_engine):
    running = [own_engine.submit(say(f"n {i}", max_tokens=60)) for i in range(5)]
    closing = threading.Thread(target=own_engine.close, args=(20.0,))
    closing.start()
    wait_until(lambda: own_engine._scheduler._is_closing)
    with pytest.raises(EngineClosed):
        own_engine.submit(say("late"))
    assert all(isinstance(list(r.events())[-1], Reply) for r in running)
    closing.join(5)
    assert not closing.is_alive()


def test_closing_without_grace_gives_answers_up(own_engine):
    running = [own_engine.submit(endless(f"n {i}")) for i in range(3)]
    own_engine.close()
    for r in running:
        with pytest.raises(RequestCancelled):
            list(r.events())


def test_an_engine_that_is_dropped_frees_itself(tiny_files):
    engine = Engine(tiny_files["llama"], chat_template=SHORT)
    thread = engine._scheduler._thread
    assert engine.chat(say()).content is not None
    del engine
    gc.collect()
    assert not thread.is_alive()


def test_content_deltas_are_not_lost_between_threads(engine):
    texts: dict[int, str] = {}

    def read(i):
        parts = []
        for event in engine.stream(say(f"thread {i}", max_tokens=50)):
            if isinstance(event, ContentDelta):
                parts.append(event.text)
        texts[i] = "".join(parts)
        assert isinstance(event, Reply)
        assert event.content == texts[i]

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(texts) == 4
