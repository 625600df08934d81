"""Qwen2 and Qwen2.5: full attention with biases on query, key and value. Nothing is transformed."""

from __future__ import annotations

from convert.architectures.base import (
    Architecture,
    ModelConfig,
    check_decoder,
    decoder_fields,
    embedding,
    feed_forward,
)
from convert.errors import UnsupportedModel
from convert.plan import TensorPlan, copied


def _check(config: ModelConfig) -> list[str]:
    # llama.cpp sizes Qwen2's projections by the hidden size and has no other head size for it.
    if config.n_head * config.head_dim != config.n_embd:
        raise UnsupportedModel(
            f"head_dim {config.head_dim} times {config.n_head} heads is not hidden_size {config.n_embd}"
        )
    return check_decoder(config)


def _tensors(config: ModelConfig) -> list[TensorPlan]:
    plans = [embedding(config)]
    for layer in range(config.n_layers):
        plans += _layer(layer, config)
    return [*plans, copied("output_norm.weight", "model.norm.weight", config.n_embd)]


def _layer(layer: int, config: ModelConfig) -> list[TensorPlan]:
    source, block, n_embd = f"model.layers.{layer}", f"blk.{layer}", config.n_embd
    rows = {"q": n_embd, "k": config.n_head_kv * config.head_dim, "v": config.n_head_kv * config.head_dim}
    plans = [copied(f"{block}.attn_norm.weight", f"{source}.input_layernorm.weight", n_embd)]
    for letter, n_rows in rows.items():
        projection = f"{source}.self_attn.{letter}_proj"
        plans.append(copied(f"{block}.attn_{letter}.weight", f"{projection}.weight", n_rows, n_embd))
        plans.append(copied(f"{block}.attn_{letter}.bias", f"{projection}.bias", n_rows))
    return [
        *plans,
        copied(f"{block}.attn_output.weight", f"{source}.self_attn.o_proj.weight", n_embd, n_embd),
        copied(f"{block}.ffn_norm.weight", f"{source}.post_attention_layernorm.weight", n_embd),
        *feed_forward(layer, config),
    ]


ARCHITECTURE = Architecture(
    name="qwen2",
    checkpoint_names=("Qwen2ForCausalLM",),
    check=_check,
    fields=lambda config: decoder_fields("qwen2", config),
    tensors=_tensors,
)
