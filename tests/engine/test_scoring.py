from __future__ import annotations

import numpy as np
import pytest

from edge.engine.context import ContextOptions
from edge.engine.scoring import Scorer
from edge.errors import ContextOverflow
from tests.tiny_gguf import TinyShape, write_gguf

TOKENS = list(b"one two three four five six seven eight nine ten eleven twelve")


@pytest.fixture(scope="module", params=["llama", "qwen3", "qwen35"])
def tiny_path(request, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("scored") / "m.gguf", TinyShape(architecture=request.param))


def scorer(path, **options):
    context = ContextOptions(n_ctx=128, n_threads=1, kv_type="f32", flash_attn=False)
    return Scorer(path, context=context, trusted=True, **options)


def rows(scored, tokens, first=0):
    return np.concatenate([chunk.copy() for chunk in scored.logits(tokens, first)])


def test_rows_do_not_depend_on_how_many_are_made_at_once(tiny_path):
    with scorer(tiny_path, rows_at_once=1) as one, scorer(tiny_path, rows_at_once=16) as many:
        found, wanted = rows(many, TOKENS), rows(one, TOKENS)
    assert found.shape == (len(TOKENS), 512)
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_the_last_rows_are_those_of_the_whole_text(tiny_path):
    with scorer(tiny_path, rows_at_once=8) as scored:
        whole, part = rows(scored, TOKENS), rows(scored, TOKENS, len(TOKENS) - 5)
    assert part.shape[0] == 5
    assert np.abs(part - whole[-5:]).max() < 1e-3 * np.abs(whole).max()


def test_a_text_owes_nothing_to_the_one_before(tiny_path):
    with scorer(tiny_path) as scored:
        fresh = rows(scored, TOKENS, 10)
        rows(scored, TOKENS[::-1])
        left = scored.logits(TOKENS[::-1])
        next(left)
        assert (rows(scored, TOKENS, 10) == fresh).all()


def test_the_engine_samples_from_the_same_logits(tiny_path):
    """Greedy answers are the likeliest tokens of the rows: the scorer measures what the engine runs."""
    from edge.chat.template import ChatTemplate
    from edge.engine.engine import Engine
    from edge.engine.request import ChatRequest
    from edge.engine.sampling import SamplingOptions

    request = ChatRequest(
        messages=[{"role": "user", "content": "one two three"}],
        sampling=SamplingOptions(temperature=0.0),
        max_tokens=8,
    )
    context = ContextOptions(n_ctx=128, n_threads=1, kv_type="f32", flash_attn=False)
    template = ChatTemplate("{{ messages[-1].content }}", "test")
    with Engine(tiny_path, chat_template=template, context=context) as engine:
        engine.chat(request)
        generation = engine.last_generation
        prompt, answer = list(generation.plan.prompt), list(generation.tokens)
    assert answer
    with scorer(tiny_path) as scored:
        found = rows(scored, [*prompt, *answer[:-1]], len(prompt) - 1)
    assert found.argmax(axis=1).tolist() == answer


def test_a_text_that_does_not_fit_is_refused(tiny_path):
    with scorer(tiny_path) as scored, pytest.raises(ContextOverflow):
        next(scored.logits([65] * 129))
