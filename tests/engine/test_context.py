from __future__ import annotations

import numpy as np
import pytest

from edge.engine.context import Context, ContextOptions, resolve
from edge.engine.engine import Engine
from edge.engine.sampling import SamplerChain, SamplingOptions
from edge.engine.slot import Run
from edge.errors import ContextError
from tests.engine.conftest import SHORT
from tests.tiny_gguf import TinyShape, write_gguf

pytestmark = pytest.mark.model


@pytest.fixture
def logits(tiny_engine):
    chain = SamplerChain(SamplingOptions(), tiny_engine.model.vocab)
    yield lambda: np.array(chain.logits(tiny_engine.context.slots[0]))
    chain.close()


def test_going_back_to_a_checkpoint_gives_the_logits_that_were_there(tiny_engine, logits):
    slot = tiny_engine.context.slots[0]
    slot.clear()
    slot.decode([1, 2, 3, 4])
    checkpoint = slot.checkpoint()
    slot.decode([5, 6])
    expected = logits()
    slot.decode([7, 8, 9])
    slot.decode(slot.rewind(checkpoint, [1, 2, 3, 4, 5, 6]))
    assert slot.tokens == [1, 2, 3, 4, 5, 6]
    assert np.abs(logits() - expected).max() < 1e-3


def test_the_end_of_a_sequence_is_dropped_only_where_the_state_allows_it(tiny_engine):
    slot, is_hybrid = tiny_engine.context.slots[0], tiny_engine.model.is_hybrid
    slot.clear()
    slot.decode([1, 2, 3, 4])
    assert slot.cut(9)
    assert slot.cut(2) is not is_hybrid
    assert slot.tokens == ([1, 2, 3, 4] if is_hybrid else [1, 2])


def test_a_text_decoded_in_pieces_has_the_logits_of_the_whole(tiny_engine, logits):
    slot, tokens = tiny_engine.context.slots[0], [*range(1, 40)]
    slot.clear()
    slot.decode(tokens)
    whole = logits()
    slot.clear()
    for token in tokens:
        slot.decode([token])
    assert np.abs(logits() - whole).max() < 2e-2


@pytest.mark.parametrize("n_ubatch", [0, 33, -1])
def test_a_step_larger_than_a_batch_is_refused(tiny_engine, n_ubatch):
    with pytest.raises(ContextError, match=f"n_ubatch is {n_ubatch}; allowed is 1 to n_batch, 32"):
        resolve(ContextOptions(n_batch=32, n_ubatch=n_ubatch), tiny_engine.model.header)


def test_a_smaller_step_gives_the_same_logits(tiny_engine, logits):
    tokens = [*range(1, 40)]
    tiny_engine.context.slots[0].clear()
    tiny_engine.context.slots[0].decode(tokens)
    whole = logits()
    small = Context(tiny_engine.model, ContextOptions(n_ctx=64, n_batch=32, n_ubatch=8, n_threads=1))
    try:
        small.slots[0].decode(tokens)
        chain = SamplerChain(SamplingOptions(), tiny_engine.model.vocab)
        assert np.abs(np.array(chain.logits(small.slots[0])) - whole).max() < 2e-2
        chain.close()
    finally:
        small.close()


def test_an_engine_keeps_no_more_states_than_its_options_allow(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", TinyShape(architecture="qwen35"))
    with Engine(path, chat_template=SHORT, context=ContextOptions(n_threads=1, snapshot_bytes=0)) as engine:
        slots, slot = engine._scheduler._slots, engine.context.slots[0]
        for token in (1, 2, 3):
            engine.context.decode([Run(slot, [token], wants_logits=True)])
            slots.snapshot(slot)
        one_state = len(slot.checkpoint().state)
        assert slots.n_snapshot_bytes == one_state  # the last is kept whatever the limit
