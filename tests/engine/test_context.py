from __future__ import annotations

import numpy as np
import pytest

from edge.engine.sampling import SamplerChain, SamplingOptions

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
