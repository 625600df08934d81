"""Raw prompts and log probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.engine.logprobs import token_logprob
from edge.engine.request import ChatRequest, CompletionRequest
from edge.engine.sampling import SamplingOptions
from edge.errors import ContextOverflow, RequestError
from edge.types import ContentDelta, Tool

pytestmark = pytest.mark.model

GREEDY = SamplingOptions(temperature=0.0)
PING = Tool("ping", {"type": "object", "properties": {}, "additionalProperties": False})


def complete(engine, prompt="abc", **options):
    options = {"sampling": GREEDY, "max_tokens": 20, **options}
    return engine.chat(CompletionRequest(prompt=prompt, **options))


def test_text_and_its_token_ids_are_continued_alike(tiny_engine):
    ids = tiny_engine.tokenize("abc", add_bos=True)
    by_text, by_ids = complete(tiny_engine), complete(tiny_engine, ids)
    assert by_text.content == by_ids.content
    assert by_text.usage.prompt_tokens == by_ids.usage.prompt_tokens == len(ids)


def test_a_continuation_is_handed_out_as_it_was_written(tiny_engine):
    reply = complete(tiny_engine, max_tokens=60, gbnf='root ::= "  \\n<tool_call> <think>x</think> "')
    assert reply.content == "  \n<tool_call> <think>x</think> "
    assert (reply.tool_calls, reply.reasoning, reply.finish_reason) == ((), "", "stop")
    assert complete(tiny_engine, gbnf='root ::= " ab cd"', stop=["cd"]).content == " ab "


@pytest.mark.parametrize(
    ("prompt", "error", "found"),
    [
        ([], RequestError, "the prompt is empty"),
        ([-1], RequestError, "token 0 is -1; allowed are ids from 0 to 511"),
        ([1, 512], RequestError, "token 1 is 512"),
        ([True], RequestError, "token 0 is True"),
        (["a"], RequestError, "token 0 is 'a'"),
        ("x" * 2000, ContextOverflow, "2000 tokens"),
        ([5] * 1024, ContextOverflow, "1024 tokens"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_refused(tiny_engine, prompt, error, found):
    with pytest.raises(error, match=found):
        complete(tiny_engine, prompt)


def test_ids_outside_the_vocabulary_have_no_text(tiny_engine):
    assert tiny_engine.detokenize(tiny_engine.tokenize("né €")) == "né €"
    with pytest.raises(RequestError):
        tiny_engine.detokenize([10**9])


def test_log_probabilities_are_those_of_the_whole_vocabulary():
    class Words:
        def piece(self, token_id):
            return b"abc"[token_id : token_id + 1]

    logits = np.log(np.array([0.2, 0.5, 0.3], dtype=np.float32)) + 40
    found = token_logprob(logits, 2, 2, Words())
    assert math.isclose(found.logprob, math.log(0.3), abs_tol=1e-5)
    assert [(t.data, round(math.exp(t.logprob), 4)) for t in found.top] == [(b"b", 0.5), (b"c", 0.3)]
    assert len(token_logprob(logits, 0, 20, Words()).top) == 3
    assert token_logprob(logits, 0, 0, Words()).top == ()


def test_each_token_of_the_content_has_its_log_probability(tiny_engine):
    events = list(tiny_engine.stream(CompletionRequest(
        prompt="abc", sampling=GREEDY, max_tokens=20, logprobs=True, top_logprobs=3
    )))  # fmt: skip
    reply = events[-1]
    assert b"".join(t.data for t in reply.logprobs).decode("utf-8", "replace") == reply.content
    assert len(reply.logprobs) == reply.usage.completion_tokens
    for token in reply.logprobs:
        assert token.logprob <= 0
        assert len(token.top) == 3
        assert token.top[0].token_id == token.token_id  # greedy
        assert sorted(t.logprob for t in token.top)[::-1] == [t.logprob for t in token.top]
    streamed = [t for event in events if isinstance(event, ContentDelta) for t in event.logprobs]
    assert tuple(streamed) == reply.logprobs
    assert complete(tiny_engine).logprobs == ()


def test_a_call_has_no_log_probabilities(tiny_engine):
    reply = tiny_engine.chat(
        ChatRequest(
            messages=[{"role": "user", "content": "x"}],
            tools=[PING],
            tool_choice="required",
            logprobs=True,
            max_tokens=60,
        )
    )
    assert reply.tool_calls
    assert reply.logprobs == ()


def test_how_many_alternatives_may_be_asked_for_is_bounded(tiny_engine):
    with pytest.raises(RequestError, match="top_logprobs is 21; allowed is 0 to 20"):
        complete(tiny_engine, logprobs=True, top_logprobs=21)
