"""The memory model's terms: by hand, and against what llama.cpp reserves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge.cli.plan import file_facts
from edge.engine.dry_load import dry_load
from profiles.errors import PinError, UnknownShape
from profiles.footprint import (
    RunOptions,
    compute_bytes,
    footprint,
    kv_cache_bytes,
    n_slots,
    output_bytes,
    recurrent_state_bytes,
    repacked_bytes,
    resident_weight_bytes,
    state_cache_bytes,
)
from profiles.recipes import estimate_weights
from tests.tiny_gguf import TinyShape, write_gguf

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("n_ctx", "kv_type", "n_parallel", "mib"),
    [
        (4096, "f16", 1, 128),  # 8 layers x 4 heads x (256 + 256) x 2 bytes = 32 KiB a token
        (32768, "f16", 1, 1024),
        (4096, "f16", 4, 512),
        (4096, "q8_0", 1, 68),
        (4096, "f32", 1, 256),
        (1, "f16", 1, 8),  # 256 cells at least
    ],
)
def test_only_the_full_attention_layers_of_qwen35_have_a_kv_cache(qwen35_4b, n_ctx, kv_type, n_parallel, mib):
    options = RunOptions(n_ctx=n_ctx, kv_type_k=kv_type, kv_type_v=kv_type, n_parallel=n_parallel)
    assert kv_cache_bytes(qwen35_4b, options) == mib * MIB


def test_k_and_v_have_their_own_types(qwen35_4b):
    options = RunOptions(n_ctx=4096, kv_type_k="q8_0", kv_type_v="f16")
    assert kv_cache_bytes(qwen35_4b, options) == (34 + 64) * MIB


def test_qwen3_has_a_kv_cache_in_every_layer(qwen3_4b):
    # 36 layers x 8 heads x (128 + 128) x 2 bytes = 144 KiB a token
    assert kv_cache_bytes(qwen3_4b, RunOptions(n_ctx=4096)) == 4096 * 144 * KIB


def test_the_recurrent_state_is_50_mib_a_sequence_and_does_not_grow_with_the_context(qwen35_4b, qwen3_4b):
    # 24 layers x (128 x 4096 + 3 x 8192) floats
    for n_ctx in (512, 262_144):
        assert recurrent_state_bytes(qwen35_4b, RunOptions(n_ctx=n_ctx, kv_type_k="q8_0")) == 50.25 * MIB
    assert recurrent_state_bytes(qwen35_4b, RunOptions(n_ctx=512, n_parallel=3)) == 3 * 50.25 * MIB
    assert recurrent_state_bytes(qwen3_4b, RunOptions(n_ctx=512)) == 0


def test_states_that_are_kept_are_counted_with_the_one_that_is_being_made(qwen35_4b, qwen3_4b):
    room = RunOptions(n_ctx=512, state_cache_bytes=256 * MIB)
    assert state_cache_bytes(qwen35_4b, room) == (256 + 50.25) * MIB
    assert state_cache_bytes(qwen35_4b, replace(room, state_cache_bytes=0)) == 2 * 50.25 * MIB
    assert state_cache_bytes(qwen3_4b, room) == 0


def test_the_logits_of_one_position_a_sequence_are_read(qwen35_4b, qwen3_4b):
    assert output_bytes(qwen35_4b, RunOptions(n_ctx=512)) == 248_320 * 4
    assert output_bytes(qwen3_4b, RunOptions(n_ctx=512)) == 2 * 151_936 * 4  # and of the spare slot


def test_the_compute_buffer_is_driven_by_the_step(qwen35_4b):
    at_512 = compute_bytes(qwen35_4b, RunOptions(n_ctx=4096))
    assert at_512 == pytest.approx(73 * MIB, rel=0.01)
    assert compute_bytes(qwen35_4b, RunOptions(n_ctx=4096, n_ubatch=128)) < at_512 / 3.9


@pytest.mark.parametrize(
    ("features", "quantization", "share"),
    [
        ((), "Q4_K_M", 0),
        (("avx2",), "Q8_0", 0),
        (("avx2",), "BF16", 0),
        (("asimd",), "Q4_K_M", 0),  # Raspberry Pi 4 has no dot product
        (("asimd", "asimddp"), "Q8_0", 1),
    ],
)
def test_what_is_repacked_depends_on_the_processor(qwen3_4b, features, quantization, share):
    weights = estimate_weights(qwen3_4b, quantization)
    matrices = sum(g.n_bytes for g in weights.groups if g.ggml_type == quantization)
    found = repacked_bytes(qwen3_4b, weights, RunOptions(n_ctx=512), features)
    assert found == share * matrices


def test_x86_repacks_the_q4_k_matrices_of_a_q4_k_m_file_alone(qwen35_4b):
    weights = estimate_weights(qwen35_4b, "Q4_K_M")
    q4_k = sum(g.n_bytes for g in weights.groups if g.ggml_type == "Q4_K")
    options = RunOptions(n_ctx=512)
    assert repacked_bytes(qwen35_4b, weights, options, ("avx2",)) == q4_k
    assert q4_k == pytest.approx(1571 * MIB, rel=0.001)  # what llama.cpp allocates for CPU_REPACK
    assert repacked_bytes(qwen35_4b, weights, replace(options, use_extra_bufts=False), ("avx2",)) == 0


def test_without_a_mapping_what_is_repacked_exists_once(qwen35_4b):
    weights = estimate_weights(qwen35_4b, "Q4_K_M")
    unmapped = RunOptions(n_ctx=512, use_mmap=False)
    total = resident_weight_bytes(qwen35_4b, weights, unmapped, ("avx2",))
    total += repacked_bytes(qwen35_4b, weights, unmapped, ("avx2",))
    assert total == weights.tensor_bytes


class TestOffloading:
    def test_all_layers_on_a_gpu_leave_the_embedding(self, qwen35_4b):
        weights = estimate_weights(replace(qwen35_4b, tied=False), "Q8_0")
        shape = replace(qwen35_4b, tied=False)
        found = footprint(shape, weights, RunOptions(n_ctx=4096, n_gpu_layers=33, use_mmap=False))
        embedding = sum(g.n_bytes for g in weights.groups if g.use == "embedding")
        assert found.weights == embedding
        assert found.kv_cache == found.recurrent_state == 0
        assert found.accelerator_bytes > weights.tensor_bytes - embedding + 178 * MIB

    def test_half_the_layers_take_half_of_the_cache_with_them(self, qwen35_4b):
        weights = estimate_weights(qwen35_4b, "Q8_0")
        found = footprint(qwen35_4b, weights, RunOptions(n_ctx=4096, n_gpu_layers=16, use_mmap=False))
        assert found.kv_cache == 64 * MIB

    def test_unified_memory_holds_everything(self, qwen35_4b):
        weights = estimate_weights(qwen35_4b, "Q8_0")
        options = RunOptions(n_ctx=4096, n_gpu_layers=33, use_mmap=False)
        found = footprint(qwen35_4b, weights, options, unified_memory=True)
        assert found.accelerator_bytes == 0
        assert found.kv_cache == 128 * MIB
        assert found.weights > weights.tensor_bytes  # a tied embedding is there twice, once as the output


def test_an_unknown_kv_type_is_refused():
    with pytest.raises(PinError, match="'q5'; allowed are f32, f16, bf16, q8_0, q4_0"):
        RunOptions(n_ctx=512, kv_type_k="q5")


@pytest.mark.parametrize(("field", "value"), [("architecture", "mamba"), ("n_layer", 0), ("n_vocab", -1)])
def test_a_shape_that_cannot_be_is_refused(qwen3_4b, field, value):
    with pytest.raises(UnknownShape, match=f"{field}|architecture"):
        replace(qwen3_4b, **{field: value})


def large(architecture, **changes):
    """Dimensions large enough that every term shows in a log of hundredths of a MiB."""
    sizes = {
        "n_layer": 4,
        "interval": 4,
        "n_embd": 256,
        "n_ff": 1024,
        "n_head": 8,
        "n_head_kv": 2,
        "head_dim": 64,
    }
    recurrent = {"n_key_heads": 4, "n_value_heads": 8, "state_size": 64, "n_vocab": 4096, "n_ctx": 65536}
    return TinyShape(architecture=architecture, **(sizes | recurrent | changes))


SHAPES = {
    "llama": large("llama"),
    "qwen3": large("qwen3"),
    "qwen3 with wide heads": large("qwen3", head_dim=128, n_head=16),
    "qwen35": large("qwen35"),
    "qwen35 with a large state": large("qwen35", n_value_heads=16, state_size=128, n_ff=512),
}
OPTIONS = [
    RunOptions(n_ctx=n_ctx, kv_type_k=kv, kv_type_v=kv, n_ubatch=n_ubatch, n_parallel=n_parallel, flash_attn=fa)
    for n_ctx, kv, n_ubatch, n_parallel, fa in [
        (1024, "f16", 512, 1, True), (8192, "f16", 512, 1, True), (8192, "q8_0", 64, 1, True),
        (1024, "f16", 256, 4, True), (2000, "f32", 128, 3, True), (4096, "f16", 512, 1, False),
    ]
]  # fmt: skip


@pytest.mark.model
@pytest.mark.parametrize("name", SHAPES)
def test_every_term_is_what_llama_cpp_reserves(tmp_path: Path, name):
    path = write_gguf(tmp_path / "m.gguf", SHAPES[name])
    facts = file_facts(path)
    for options in OPTIONS:
        reserved = dry_load(
            path,
            n_ctx=options.n_ctx,
            kv_type=options.kv_type_k,
            n_ubatch=options.n_ubatch,
            n_parallel=options.n_parallel,
            n_slots=n_slots(facts.shape, options),
            flash_attn=options.flash_attn,
        )
        planned = footprint(facts.shape, facts.weights[0], replace(options, use_extra_bufts=False))
        hundredth = 0.01 * MIB
        assert planned.weights == reserved.weights, options
        assert planned.kv_cache == pytest.approx(reserved.kv_cache, abs=hundredth), options
        assert planned.recurrent_state == pytest.approx(reserved.recurrent_state, abs=hundredth), options
        assert planned.output == pytest.approx(reserved.output, abs=hundredth), options
        off = planned.compute - reserved.compute
        assert -1.1 * MIB < off < max(3 * MIB, 0.5 * reserved.compute), (options, off / MIB)


@pytest.mark.parametrize(
    "more", [{"n_ctx": 8192}, {"n_ubatch": 256}, {"n_parallel": 2}, {"kv_type_k": "f32"}]
)
def test_more_of_anything_takes_more_memory(qwen35_4b, more):
    weights = estimate_weights(qwen35_4b, "Q4_K_M")
    little = RunOptions(n_ctx=4096, n_ubatch=128)
    enlarged = footprint(qwen35_4b, weights, replace(little, **more))
    assert enlarged.total_bytes > footprint(qwen35_4b, weights, little).total_bytes
