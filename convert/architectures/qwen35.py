"""Qwen3.5: gated delta-rule layers with a full-attention layer among them.

Three things differ between transformers and ggml:
- norms are stored zero-centred (applied as 1 + w) in the checkpoint and plain in GGUF; the delta rule's own norm is
  plain in both;
- value heads are grouped by key head in the checkpoint, [k0v0 k0v1 k1v0 k1v1], and tiled in GGUF,
  [k0v0 k1v0 k0v1 k1v1];
- A_log is stored as its final form, -exp(A_log).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

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

_LINEAR, _FULL = "linear_attention", "full_attention"
_DEFAULT_SECTIONS = (11, 11, 10)


def _head_dims(config: ModelConfig) -> tuple[int, int, int]:
    """Key heads, value heads and head size of the delta-rule layers."""
    n_key, n_value = config.integer("linear_num_key_heads"), config.integer("linear_num_value_heads")
    return n_key, n_value, config.integer("linear_value_head_dim")


def _layer_types(config: ModelConfig) -> list[str]:
    types = config.values.get("layer_types")
    if types is None:
        interval = config.integer("full_attention_interval", 4)
        types = [_FULL if (i + 1) % interval == 0 else _LINEAR for i in range(config.n_layers)]
    if len(types) != config.n_layers or set(types) - {_LINEAR, _FULL}:
        raise UnsupportedModel(
            f"layer_types must name {config.n_layers} layers, each {_LINEAR!r} or {_FULL!r}; found {types}"
        )
    return list(types)


def _sections(config: ModelConfig) -> tuple[int, ...]:
    return tuple(int(size) for size in config.rope.get("mrope_section") or _DEFAULT_SECTIONS)


def _n_rot(config: ModelConfig) -> int:
    return int(config.head_dim * float(config.rope.get("partial_rotary_factor", 0.25)))


def _check(config: ModelConfig) -> list[str]:
    warnings = check_decoder(config)
    _layer_types(config)
    n_key, n_value, value_dim = _head_dims(config)
    key_dim = config.integer("linear_key_head_dim")
    if key_dim != value_dim:
        raise UnsupportedModel(
            f"linear_key_head_dim {key_dim} differs from linear_value_head_dim {value_dim}; llama.cpp needs them equal"
        )
    if n_key == 0 or n_value % n_key:
        raise UnsupportedModel(f"{n_value} linear value heads do not divide into {n_key} key heads")
    _check_sections(config)
    epsilon = config.number("rms_norm_eps", 1e-6)
    if epsilon != 1e-6:
        # llama.cpp uses the norm's epsilon for the L2 norm of q and k too, transformers always 1e-6.
        warnings.append(
            f"rms_norm_eps is {epsilon:g}, not 1e-06: llama.cpp will differ slightly from transformers"
        )
    return warnings


def _check_sections(config: ModelConfig) -> None:
    """llama.cpp rotates a pair outside its section by position 0, silently, even on pure text."""
    sections = _sections(config)
    if len(sections) != 3 or sum(sections) == 0:
        raise UnsupportedModel(f"mrope_section is {list(sections)}; three sizes, not all zero, are needed")
    for pair in range(_n_rot(config) // 2):
        place = pair % sum(sections)
        if place >= 3 * sections[place % 3]:
            raise UnsupportedModel(
                f"mrope_section {list(sections)} leaves rotation pair {pair} without a position"
            )


def _fields(config: ModelConfig) -> list[Field]:
    n_key, n_value, value_dim = _head_dims(config)
    recurrent = tuple(kind == _LINEAR for kind in _layer_types(config))
    return [
        *decoder_fields("qwen35", config),
        Field("qwen35.rope.dimension_count", "u32", _n_rot(config)),
        Field("qwen35.rope.dimension_sections", "i32[]", (*_sections(config), 0)),
        Field("qwen35.ssm.conv_kernel", "u32", config.integer("linear_conv_kernel_dim")),
        Field("qwen35.ssm.state_size", "u32", config.integer("linear_key_head_dim")),
        Field("qwen35.ssm.group_count", "u32", n_key),
        Field("qwen35.ssm.time_step_rank", "u32", n_value),
        Field("qwen35.ssm.inner_size", "u32", value_dim * n_value),
        Field("qwen35.full_attention_interval", "u32", config.integer("full_attention_interval", 4)),
        # Read before the interval, and right for any pattern of layers.
        Field("qwen35.attention.recurrent_layers", "bool[]", recurrent),
    ]


def _tensors(config: ModelConfig) -> list[TensorPlan]:
    plans = [embedding(config)]
    for layer, kind in enumerate(_layer_types(config)):
        source, block = f"model.layers.{layer}", f"blk.{layer}"
        plans.append(_centred(f"{block}.attn_norm.weight", f"{source}.input_layernorm.weight", config.n_embd))
        plans += _linear(layer, config) if kind == _LINEAR else _attention(layer, config)
        plans.append(
            _centred(
                f"{block}.post_attention_norm.weight",
                f"{source}.post_attention_layernorm.weight",
                config.n_embd,
            )
        )
        plans += feed_forward(layer, config)
    return [*plans, _centred("output_norm.weight", "model.norm.weight", config.n_embd)]


def _centred(name: str, source: str, size: int) -> TensorPlan:
    return TensorPlan(name, source, (size,), (size,), function="add_one")


def _attention(layer: int, config: ModelConfig) -> list[TensorPlan]:
    source, block = f"model.layers.{layer}.self_attn", f"blk.{layer}"
    n_embd, head_dim = config.n_embd, config.head_dim
    n_q, n_kv = config.n_head * head_dim, config.n_head_kv * head_dim
    return [
        # Twice the rows: per head the query, then its output gate; ggml splits them the same way.
        copied(f"{block}.attn_q.weight", f"{source}.q_proj.weight", 2 * n_q, n_embd),
        copied(f"{block}.attn_k.weight", f"{source}.k_proj.weight", n_kv, n_embd),
        copied(f"{block}.attn_v.weight", f"{source}.v_proj.weight", n_kv, n_embd),
        copied(f"{block}.attn_output.weight", f"{source}.o_proj.weight", n_embd, n_q),
        _centred(f"{block}.attn_q_norm.weight", f"{source}.q_norm.weight", head_dim),
        _centred(f"{block}.attn_k_norm.weight", f"{source}.k_norm.weight", head_dim),
    ]


def _linear(layer: int, config: ModelConfig) -> list[TensorPlan]:
    source, block, n_embd = f"model.layers.{layer}.linear_attn", f"blk.{layer}", config.n_embd
    n_key, n_value, dim = _head_dims(config)
    kernel = config.integer("linear_conv_kernel_dim")
    values, heads = tiled_values(n_key, n_value, dim), tiled_values(n_key, n_value, 1)
    n_keys = 2 * n_key * dim  # query and key rows come first and stay
    mixed = None if values is None else np.concatenate([np.arange(n_keys), n_keys + values])
    n_mixed, n_values = n_keys + n_value * dim, n_value * dim
    qkv = copied(f"{block}.attn_qkv.weight", f"{source}.in_proj_qkv.weight", n_mixed, n_embd)
    gate = copied(f"{block}.attn_gate.weight", f"{source}.in_proj_z.weight", n_values, n_embd)
    alpha = copied(f"{block}.ssm_alpha.weight", f"{source}.in_proj_a.weight", n_value, n_embd)
    beta = copied(f"{block}.ssm_beta.weight", f"{source}.in_proj_b.weight", n_value, n_embd)
    decay = copied(f"{block}.ssm_a", f"{source}.A_log", n_value)
    step = copied(f"{block}.ssm_dt.bias", f"{source}.dt_bias", n_value)
    conv = copied(f"{block}.ssm_conv1d.weight", f"{source}.conv1d.weight", n_mixed, kernel)
    out = copied(f"{block}.ssm_out.weight", f"{source}.out_proj.weight", n_embd, n_values)
    return [
        replace(qkv, row_order=mixed),
        replace(gate, row_order=values),
        replace(alpha, row_order=heads),
        replace(beta, row_order=heads),
        replace(decay, row_order=heads, function="negative_exp"),
        replace(step, row_order=heads),
        replace(conv, row_order=mixed, source_shape=(n_mixed, 1, kernel)),
        copied(f"{block}.ssm_norm.weight", f"{source}.norm.weight", dim),
        replace(out, column_order=values),
    ]


def tiled_values(n_key: int, n_value: int, dim: int) -> Order | None:
    """Order that turns value heads grouped by key head into tiled ones; None where both are the same."""
    if n_key == n_value:
        return None
    rows = np.arange(n_value * dim).reshape(
        n_key, n_value // n_key, dim
    )  # (key head, value head in group, dim)
    return rows.transpose(1, 0, 2).reshape(-1)


def _rename(name: str) -> str:
    # Checkpoints saved from the vision-language class keep this part even when they name the text-only class.
    return name.replace("model.language_model.", "model.").replace("language_model.", "")


def _dropped(name: str) -> str | None:
    if name.startswith(("model.visual.", "visual.")):
        return "vision tower"
    if name.startswith(("mtp.", "model.mtp.")):
        return "multi-token prediction head"
    return None


ARCHITECTURE = Architecture(
    name="qwen35",
    checkpoint_names=("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    check=_check,
    fields=_fields,
    tensors=_tensors,
    rename=_rename,
    dropped=_dropped,
)
