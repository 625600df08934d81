"""llama.cpp computes from our files what transformers computes from the checkpoint, and only if nothing is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.convert.make_golden import GOLDEN
from tests.convert.support import compared, kl_divergence, llama_logits, plan_of, write_plan
from tests.convert.tiny_checkpoints import TINY

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def computed(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("parity")
    files = {
        name: write_plan(out / f"{name}.gguf", tiny(name), plan_of(tiny(name)), pre=TINY[name].pre)
        for name in TINY
    }
    return llama_logits(files, out)


@pytest.mark.parametrize("name", TINY)
def test_logits_equal_those_of_transformers_in_float32(name, computed, golden):
    ours, theirs = compared(computed[name]), golden[name]
    assert np.abs(ours - theirs).max() < 1e-3
    assert kl_divergence(theirs, ours) < 1e-7
    assert (ours.argmax(axis=-1) == theirs.argmax(axis=-1)).all()


def _without_function(part: str):
    return lambda tensor: replace(tensor, function="none") if part in tensor.name else tensor


def _without_row_order(part: str):
    return lambda tensor: replace(tensor, row_order=None) if part in tensor.name else tensor


def _without_column_order(part: str):
    return lambda tensor: replace(tensor, column_order=None) if part in tensor.name else tensor


def _with_function(part: str):
    return lambda tensor: replace(tensor, function="add_one") if part in tensor.name else tensor


TENSOR_CHANGES = {
    "qwen35-double: attn_norm + 1": _without_function(".attn_norm"),
    "qwen35-double: post_attention_norm + 1": _without_function("post_attention_norm"),
    "qwen35-double: output_norm + 1": _without_function("output_norm"),
    "qwen35-double: q_norm + 1": _without_function("attn_q_norm"),
    "qwen35-double: k_norm + 1": _without_function("attn_k_norm"),
    "qwen35-double: ssm_norm left plain": _with_function("ssm_norm"),
    "qwen35-double: -exp(A_log)": _without_function("ssm_a"),
    "qwen35-double: qkv value rows": _without_row_order("attn_qkv"),
    "qwen35-double: conv value channels": _without_row_order("ssm_conv1d"),
    "qwen35-double: gate rows": _without_row_order("attn_gate"),
    "qwen35-double: alpha rows": _without_row_order("ssm_alpha"),
    "qwen35-double: beta rows": _without_row_order("ssm_beta"),
    "qwen35-double: A_log rows": _without_row_order("ssm_a"),
    "qwen35-double: dt rows": _without_row_order("ssm_dt"),
    "qwen35-double: out columns": _without_column_order("ssm_out"),
    "llama: query rows": _without_row_order("attn_q"),
    "llama: key rows": _without_row_order("attn_k"),
}
FIELD_CHANGES = {
    "qwen35-double: rope.dimension_count": "qwen35.rope.dimension_count",
    "qwen35-real-heads: rope.freq_base": "qwen35.rope.freq_base",
    "qwen35-irregular: recurrent_layers": "qwen35.attention.recurrent_layers",
    "qwen3-tied: key_length": "qwen3.attention.key_length",
}


def _changed_plan(folder, case: str):
    plan = plan_of(folder)
    if case in FIELD_CHANGES:
        return replace(plan, fields=tuple(field for field in plan.fields if field.key != FIELD_CHANGES[case]))
    if case in TENSOR_CHANGES:
        return replace(plan, tensors=tuple(TENSOR_CHANGES[case](tensor) for tensor in plan.tensors))
    return replace(
        plan, tensors=tuple(tensor for tensor in plan.tensors if tensor.name != "rope_freqs.weight")
    )


# Without these llama.cpp derives sizes that the tensors do not have, and does not load the file.
REFUSED_BY_LLAMA_CPP = ("qwen35-irregular: recurrent_layers", "qwen3-tied: key_length")
CASES = [*TENSOR_CHANGES, *FIELD_CHANGES, "llama3-rope: rope_freqs"]


@pytest.fixture(scope="module")
def spoiled(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("spoiled")
    files = {}
    for case in CASES:
        name = case.partition(":")[0]
        file = case.replace(" ", "_").replace("/", "_")
        path = out / f"{file}.gguf"
        files[case] = write_plan(path, tiny(name), _changed_plan(tiny(name), case), pre=TINY[name].pre)
    return llama_logits(files, out)


@pytest.mark.parametrize("case", CASES)
def test_without_this_step_the_model_is_another_one(case, spoiled, golden):
    found = spoiled[case]
    if found is None:
        assert case in REFUSED_BY_LLAMA_CPP
    else:  # NaN is another model too
        assert not kl_divergence(golden[case.partition(":")[0]], compared(found)) < 1e-6
