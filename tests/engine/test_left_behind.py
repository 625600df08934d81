"""What answers leave behind in memory: nothing that waits for Python's cycle collector, nothing large of their own."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.engine.request import ChatRequest
from edge.engine.sampling import SamplingOptions
from edge.errors import DeadlineExceeded
from edge.types import Tool
from tests.engine.conftest import SHORT
from tests.tiny_gguf import TinyShape, write_gguf

N_VOCAB = 16_384  # an answer's own array of all tokens would have 260 KB
TOOL = Tool("f", {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]})
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
KINDS = {
    "text": {},
    "log probabilities": {"logprobs": True, "top_logprobs": 3},
    "a call": {"tools": [TOOL], "tool_choice": "required", "max_tokens": 60},
    "a schema": {"response_format": FORMAT},
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    path = tmp_path_factory.mktemp("left") / "m.gguf"
    write_gguf(path, TinyShape(n_vocab=N_VOCAB, n_embd=32, n_ff=32, n_layer=1))
    with Engine(path, chat_template=SHORT, context=ContextOptions(n_threads=1)) as engine:
        yield engine


def request(number: int, **more: object) -> ChatRequest:
    # Of another length each time: what is kept by size would show.
    return ChatRequest(
        **{
            "messages": [{"role": "user", "content": "x" * (number + 1)}],
            "max_tokens": 8,
            "sampling": SamplingOptions(seed=number, temperature=1.0),
            **more,
        }
    )


def answer_late(engine: Engine, number: int) -> None:
    events = engine.submit(request(number, max_tokens=900), deadline_s=0.01).events()
    with pytest.raises(DeadlineExceeded):
        list(events)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_leaves_nothing_to_the_cycle_collector(engine, no_collector, kind):
    for number in range(3):  # fills what is made once
        engine.chat(request(number, **KINDS[kind]))
    gc.collect()
    for number in range(3, 9):
        engine.chat(request(number, **KINDS[kind]))
    assert gc.collect() == 0


def test_nor_does_one_that_is_given_up(engine, no_collector):
    answer_late(engine, 0)
    gc.collect()
    for number in range(1, 5):
        answer_late(engine, number)
    assert gc.collect() == 0


def test_answers_share_the_array_of_all_tokens(engine):
    engine.chat(request(0))
    tracemalloc.start()
    try:
        engine.chat(request(1))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 12 * N_VOCAB, "an answer made an array of all tokens"
