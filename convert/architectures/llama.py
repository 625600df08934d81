"""Llama: full attention; query and key rows are reordered for ggml's adjacent-pair rope.

transformers rotates element i with element i + head_dim/2, ggml's `llama` rotates 2i with 2i + 1, so each head's rows
are interleaved. The llama3 rope scaling becomes a tensor of frequency divisors.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.architectures.base import (
    Architecture,
    ModelConfig,
    check_decoder,
    decoder_fields,
    embedding,
    feed_forward,
)
from convert.errors import UnsupportedModel
from convert.plan import Field, Order, TensorPlan, copied


def _check(config: ModelConfig) -> list[str]:
    return check_decoder(config, rope_types=("default", "llama3"))


def _fields(config: ModelConfig) -> list[Field]:
    return [
        *decoder_fields("llama", config),
        Field("llama.vocab_size", "u32", config.n_vocab),
        Field("llama.rope.dimension_count", "u32", config.head_dim),
    ]


def _tensors(config: ModelConfig) -> list[TensorPlan]:
    plans = [embedding(config)]
    if config.rope["rope_type"] == "llama3":
        divisors = llama3_divisors(config.rope, config.head_dim)
        plans.append(TensorPlan("rope_freqs.weight", "", divisors.shape, divisors.shape, constant=divisors))
    for layer in range(config.n_layers):
        plans += _layer(layer, config)
    return [*plans, copied("output_norm.weight", "model.norm.weight", config.n_embd)]


def _layer(layer: int, config: ModelConfig) -> list[TensorPlan]:
    source, block, n_embd = f"model.layers.{layer}", f"blk.{layer}", config.n_embd
    n_q, n_kv = config.n_head * config.head_dim, config.n_head_kv * config.head_dim
    query = copied(f"{block}.attn_q.weight", f"{source}.self_attn.q_proj.weight", n_q, n_embd)
    key = copied(f"{block}.attn_k.weight", f"{source}.self_attn.k_proj.weight", n_kv, n_embd)
    return [
        copied(f"{block}.attn_norm.weight", f"{source}.input_layernorm.weight", n_embd),
        replace(query, row_order=interleaved_halves(config.n_head, config.head_dim)),
        replace(key, row_order=interleaved_halves(config.n_head_kv, config.head_dim)),
        copied(f"{block}.attn_v.weight", f"{source}.self_attn.v_proj.weight", n_kv, n_embd),
        copied(f"{block}.attn_output.weight", f"{source}.self_attn.o_proj.weight", n_embd, n_q),
        copied(f"{block}.ffn_norm.weight", f"{source}.post_attention_layernorm.weight", n_embd),
        *feed_forward(layer, config),
    ]


def interleaved_halves(n_head: int, head_dim: int) -> Order:
    """Row order in which each head's two halves alternate: 0, d/2, 1, d/2 + 1, ..."""
    rows = np.arange(n_head * head_dim).reshape(n_head, 2, head_dim // 2)  # (head, half, pair)
    return rows.transpose(0, 2, 1).reshape(-1)


def llama3_divisors(rope: dict[str, Any], head_dim: int) -> NDArray[np.float32]:
    """By what each of head_dim/2 rotation frequencies is divided under llama3 scaling, shape (head_dim/2,).

    Wavelengths shorter than original/high stay, longer than original/low are divided by `factor`, and in between
    the frequency is interpolated (transformers, modeling_rope_utils, _compute_llama3_parameters).
    """
    try:
        factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
        original = rope["original_max_position_embeddings"]
    except KeyError as error:
        raise UnsupportedModel(f"llama3 rope lacks {error.args[0]}") from error
    theta = float(rope.get("rope_theta", 10000.0))
    # float32, like the reference: the comparison with the bounds must fall the same way.
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = (1.0 / (np.float32(theta) ** exponents)).astype(np.float32)
    wavelengths = 2 * math.pi / frequencies.astype(np.float64)
    smooth = (original / wavelengths - low) / (high - low)
    between = 1.0 / ((1.0 - smooth) / factor + smooth)
    divisors = np.where(wavelengths > original / low, factor, between)
    return np.where(wavelengths < original / high, 1.0, divisors).astype(np.float32)


ARCHITECTURE = Architecture(
    name="llama",
    checkpoint_names=("LlamaForCausalLM",),
    check=_check,
    fields=_fields,
    tensors=_tensors,
)
