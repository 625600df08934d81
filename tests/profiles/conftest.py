from __future__ import annotations

import pytest

from profiles.device import detect_device
from profiles.shape import ModelShape, Recurrent
from tests.profiles.recordings import unpack


@pytest.fixture
def recorded(tmp_path):
    """Unpacks a recording, with changes, and gives its folder."""
    counter = iter(range(1000))

    def make(name, **changes):
        files = {path.replace("__", "/"): text for path, text in changes.items()}
        return unpack(name, tmp_path / f"root{next(counter)}", files)

    return make


@pytest.fixture
def device(recorded):
    """The device of a recording."""
    return lambda name: detect_device(recorded(name))


@pytest.fixture
def qwen35_4b():
    """Qwen3.5-4B, as its published configuration has it."""
    return ModelShape(
        name="qwen35-4b",
        architecture="qwen35",
        n_layer=32,
        n_embd=2560,
        n_ff=9216,
        n_head=16,
        n_head_kv=4,
        head_dim_k=256,
        head_dim_v=256,
        n_vocab=248_320,
        n_ctx_train=262_144,
        recurrent=Recurrent(
            n_layer=24, conv_kernel=4, state_size=128, group_count=16, time_step_rank=32, inner_size=4096
        ),
    )


@pytest.fixture
def qwen3_4b():
    """Qwen3-4B, as its published configuration has it."""
    return ModelShape(
        name="qwen3-4b",
        architecture="qwen3",
        n_layer=36,
        n_embd=2560,
        n_ff=9728,
        n_head=32,
        n_head_kv=8,
        head_dim_k=128,
        head_dim_v=128,
        n_vocab=151_936,
        n_ctx_train=262_144,
    )
