from __future__ import annotations

import random
import time

import pytest

import edge.engine.model as model_module
from edge.engine.model import Model

PARTS = [
    "<|im_start|>",
    "<|im_end|>",
    "hello",
    " world",
    "\n",
    "  ",
    "é",
    "<|",
    "<repo_name>",
    "user\n",
    "a\u0301",
]


@pytest.mark.model
def test_a_long_text_with_many_control_tokens_is_tokenized_as_a_whole_and_quickly(
    demo_model_path, monkeypatch
):
    with Model(demo_model_path, trusted=True) as model:
        rng = random.Random(1)
        for n_per_piece in (1, 3, 64):
            text = "".join(rng.choices(PARTS, k=2_000))
            whole = model.vocab.tokenize(text)
            with monkeypatch.context() as patched:
                patched.setattr(model_module, "_LONG_CHARS", 10)
                patched.setattr(model_module, "_NAMED_PER_PIECE", n_per_piece)
                assert model.vocab.tokenize(text) == whole
        started = time.perf_counter()
        assert len(model.vocab.tokenize("<|im_end|>" * 100_000)) == 100_000
        assert time.perf_counter() - started < 10  # 50 s in one piece
