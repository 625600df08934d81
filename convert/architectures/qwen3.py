"""Qwen3: full attention with per-head query and key norms. Nothing is transformed."""

from __future__ import annotations

from convert.architectures.base import (
    Architecture,
    ModelConfig,
    check_decoder,
    decoder_fields,
    embedding,
    feed_forward,
)
from convert.plan import TensorPlan, copied


def _tensors(config: ModelConfig) -> list[TensorPlan]:
    plans = [embedding(config)]
    for layer in range(config.n_layers):
        plans += _layer(layer, config)
    return [*plans, copied("output_norm.weight", "model.norm.weight", config.n_embd)]


def _layer(layer: int, config: ModelConfig) -> list[TensorPlan]:
    source, block, n_embd = f"model.layers.{layer}", f"blk.{layer}", config.n_embd
    n_q, n_kv = config.n_head * config.head_dim, config.n_head_kv * config.head_dim
    return [
        copied(f"{block}.attn_norm.weight", f"{source}.input_layernorm.weight", n_embd),
        copied(f"{block}.attn_q.weight", f"{source}.self_attn.q_proj.weight", n_q, n_embd),
        copied(f"{block}.attn_k.weight", f"{source}.self_attn.k_proj.weight", n_kv, n_embd),
        copied(f"{block}.attn_v.weight", f"{source}.self_attn.v_proj.weight", n_kv, n_embd),
        copied(f"{block}.attn_output.weight", f"{source}.self_attn.o_proj.weight", n_embd, n_q),
        copied(f"{block}.attn_q_norm.weight", f"{source}.self_attn.q_norm.weight", config.head_dim),
        copied(f"{block}.attn_k_norm.weight", f"{source}.self_attn.k_norm.weight", config.head_dim),
        copied(f"{block}.ffn_norm.weight", f"{source}.post_attention_layernorm.weight", n_embd),
        *feed_forward(layer, config),
    ]


ARCHITECTURE = Architecture(
    name="qwen3",
    checkpoint_names=("Qwen3ForCausalLM",),
    check=check_decoder,
    fields=lambda config: decoder_fields("qwen3", config),
    tensors=_tensors,
)
