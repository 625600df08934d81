"""Tiny models with seeded random weights and a byte vocabulary, written as GGUF. For tests and benchmarks.

The vocabulary is byte-level: the 256 bytes, then invented words up to the size asked for, then the ChatML and call
tokens. Weights are scaled so that the logits are lively: a tied model with default weights only repeats its input.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
NORMAL_TYPE, CONTROL_TYPE, USER_DEFINED_TYPE = 1, 3, 4


@dataclass(frozen=True)
class TinyShape:
    architecture: str = "llama"
    n_layer: int = 2
    n_embd: int = 64
    n_ff: int = 96
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 16
    n_vocab: int = 512
    n_ctx: int = 1024
    # qwen35 only
    n_key_heads: int = 2
    n_value_heads: int = 4
    state_size: int = 16
    conv_kernel: int = 4
    interval: int = 2


def byte_characters() -> list[str]:
    """The printable character that byte-level BPE writes for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(extra)) for b in range(256)]


def vocabulary(n_vocab: int, seed: int) -> tuple[list[str], list[int]]:
    """Token texts and their types."""
    rng = np.random.default_rng(seed)
    tokens = byte_characters()
    seen = set(tokens)
    letters = np.array(list('abcdefghijklmnopqrstuvwxyz_0123456789"{}:,.[]\\/ĠĊ-'))
    n_words = n_vocab - len(SPECIAL) - len(USER_DEFINED)
    while len(tokens) < n_words:
        for row in rng.choice(letters, size=(n_words, 7)):
            word = ("Ġ" if rng.random() < 0.4 else "") + "".join(row[: rng.integers(2, 8)])
            if word not in seen and len(tokens) < n_words:
                seen.add(word)
                tokens.append(word)
    types = (
        [NORMAL_TYPE] * len(tokens) + [CONTROL_TYPE] * len(SPECIAL) + [USER_DEFINED_TYPE] * len(USER_DEFINED)
    )
    return tokens + SPECIAL + USER_DEFINED, types


def tensors(shape: TinyShape, seed: int) -> dict[str, np.ndarray]:
    """All weights by GGUF name, float32, rows first."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, cols: int, std: float | None = None) -> np.ndarray:
        return (rng.standard_normal((rows, cols)) * (std or cols**-0.5)).astype(np.float32)

    def norm(n: int) -> np.ndarray:
        return (1 + 0.2 * rng.standard_normal(n)).astype(np.float32)

    s, e = shape, shape.n_embd
    out = {"token_embd.weight": matrix(s.n_vocab, e, 0.15), "output_norm.weight": norm(e) * 4}
    out["output.weight"] = matrix(s.n_vocab, e, 0.15)
    for i in range(s.n_layer):
        b = f"blk.{i}."
        is_linear = s.architecture == "qwen35" and (i + 1) % s.interval != 0
        out[b + "attn_norm.weight"] = norm(e)
        out[b + ("post_attention_norm" if s.architecture == "qwen35" else "ffn_norm") + ".weight"] = norm(e)
        if is_linear:
            key, value = s.n_key_heads * s.state_size, s.n_value_heads * s.state_size
            out[b + "attn_qkv.weight"] = matrix(2 * key + value, e)
            out[b + "attn_gate.weight"] = matrix(value, e)
            out[b + "ssm_alpha.weight"] = matrix(s.n_value_heads, e)
            out[b + "ssm_beta.weight"] = matrix(s.n_value_heads, e)
            out[b + "ssm_a"] = -rng.uniform(0.1, 16, s.n_value_heads).astype(np.float32)
            out[b + "ssm_dt.bias"] = rng.normal(-2, 1.5, s.n_value_heads).astype(np.float32)
            out[b + "ssm_conv1d.weight"] = matrix(2 * key + value, s.conv_kernel, 0.5)
            out[b + "ssm_norm.weight"] = norm(s.state_size)
            out[b + "ssm_out.weight"] = matrix(e, value)
        else:
            gate = 2 if s.architecture == "qwen35" else 1
            out[b + "attn_q.weight"] = matrix(s.n_head * s.head_dim * gate, e)
            out[b + "attn_k.weight"] = matrix(s.n_head_kv * s.head_dim, e)
            out[b + "attn_v.weight"] = matrix(s.n_head_kv * s.head_dim, e)
            out[b + "attn_output.weight"] = matrix(e, s.n_head * s.head_dim)
            if s.architecture != "llama":
                out[b + "attn_q_norm.weight"] = norm(s.head_dim)
                out[b + "attn_k_norm.weight"] = norm(s.head_dim)
        out[b + "ffn_gate.weight"] = matrix(s.n_ff, e)
        out[b + "ffn_up.weight"] = matrix(s.n_ff, e)
        out[b + "ffn_down.weight"] = matrix(e, s.n_ff)
    return out


def metadata(shape: TinyShape, seed: int) -> dict[str, object]:
    """All keys but the architecture."""
    a, s = shape.architecture, shape
    tokens, types = vocabulary(s.n_vocab, seed)
    keys: dict[str, object] = {
        "general.name": f"tiny {a}",
        f"{a}.block_count": s.n_layer,
        f"{a}.context_length": s.n_ctx,
        f"{a}.embedding_length": s.n_embd,
        f"{a}.feed_forward_length": s.n_ff,
        f"{a}.attention.head_count": s.n_head,
        f"{a}.attention.head_count_kv": s.n_head_kv,
        f"{a}.attention.key_length": s.head_dim,
        f"{a}.attention.value_length": s.head_dim,
        f"{a}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{a}.rope.freq_base": 10000.0,
        f"{a}.rope.dimension_count": s.head_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": ["e r", "i n"],
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": False,
    }
    if a == "qwen35":
        keys |= {
            "qwen35.rope.dimension_count": s.head_dim // 2,
            "qwen35.rope.dimension_sections": [2, 1, 1, 0],
            "qwen35.ssm.conv_kernel": s.conv_kernel,
            "qwen35.ssm.state_size": s.state_size,
            "qwen35.ssm.group_count": s.n_key_heads,
            "qwen35.ssm.time_step_rank": s.n_value_heads,
            "qwen35.ssm.inner_size": s.n_value_heads * s.state_size,
            "qwen35.full_attention_interval": s.interval,
        }
    return keys


def add_key(writer: object, key: str, value: object) -> None:
    """Adds a key to a GGUFWriter by the type of its value."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_string(key, str(value))


def write_gguf(
    path: Path,
    shape: TinyShape = TinyShape(),
    *,
    seed: int = 0,
    drop: tuple[str, ...] = (),
    change: dict[str, object] | None = None,
    as_f16: tuple[str, ...] = (),
    architecture: str | None = None,
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """Writes the model; `drop` leaves keys and tensors out, `change` replaces keys, `as_f16` stores tensors as F16.

    extra: tensors besides the model's own.
    """
    import gguf

    writer = gguf.GGUFWriter(path, architecture or shape.architecture)
    for key, value in (metadata(shape, seed) | (change or {})).items():
        if key not in drop:
            add_key(writer, key, value)
    for name, array in (tensors(shape, seed) | (extra or {})).items():
        if name not in drop:
            writer.add_tensor(name, array.astype(np.float16) if name in as_f16 else array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
