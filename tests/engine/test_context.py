from __future__ import annotations

import numpy as np
import pytest

from edge.engine.context import Context, ContextOptions, resolve
from edge.engine.sampling import SamplerChain, SamplingOptions
from edge.errors import ContextError

pytestmark = pytest.mark.model


@pytest.fixture
def logits(tiny_engine):
    chain = SamplerChain(SamplingOptions(), tiny_engine.model.vocab)
    yield lambda: np.array(chain.logits(tiny_engine.context))
    chain.close()


def test_going_back_to_a_checkpoint_gives_the_logits_that_were_there(tiny_engine, logits):
    context = tiny_engine.context
    context.clear()
    context.decode([1, 2, 3, 4])
    checkpoint = context.checkpoint()
    context.decode([5, 6])
    expected = logits()
    context.decode([7, 8, 9])
    context.rewind(checkpoint, [1, 2, 3, 4, 5, 6])
    assert context.tokens == [1, 2, 3, 4, 5, 6]
    assert np.abs(logits() - expected).max() < 1e-3


def test_a_prefix_is_kept_only_where_the_state_allows_it(tiny_engine):
    context = tiny_engine.context
    context.clear()
    context.decode([1, 2, 3, 4])
    assert context.keep_prefix([1, 2, 9, 9]) == (0 if tiny_engine.model.is_hybrid else 2)
    context.clear()
    context.decode([1, 2, 3, 4])
    assert context.keep_prefix([1, 2, 3, 4, 5]) == 4
    assert context.keep_prefix([1, 2, 3, 4]) == (0 if tiny_engine.model.is_hybrid else 3)


def test_a_text_decoded_in_pieces_has_the_logits_of_the_whole(tiny_engine, logits):
    context, tokens = tiny_engine.context, [*range(1, 40)]
    context.clear()
    context.decode(tokens)
    whole = logits()
    context.clear()
    for token in tokens:
        context.decode([token])
    assert np.abs(logits() - whole).max() < 2e-2


@pytest.mark.parametrize("n_ubatch", [0, 33, -1])
def test_a_step_larger_than_a_batch_is_refused(tiny_engine, n_ubatch):
    with pytest.raises(ContextError, match=f"n_ubatch is {n_ubatch}; allowed is 1 to n_batch, 32"):
        resolve(ContextOptions(n_batch=32, n_ubatch=n_ubatch), tiny_engine.model.header)


def test_a_smaller_step_gives_the_same_logits(tiny_engine, logits):
    tokens = [*range(1, 40)]
    tiny_engine.context.clear()
    tiny_engine.context.decode(tokens)
    whole = logits()
    small = Context(tiny_engine.model, ContextOptions(n_ctx=64, n_batch=32, n_ubatch=8, n_threads=1))
    try:
        small.decode(tokens)
        chain = SamplerChain(SamplingOptions(), tiny_engine.model.vocab)
        assert np.abs(np.array(chain.logits(small)) - whole).max() < 2e-2
        chain.close()
    finally:
        small.close()
