"""A tiny BERT with seeded random weights and a WordPiece vocabulary, written as a GGUF embedding model. For tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny_gguf import add_key

N_EMBD, N_FF, N_LAYER, N_CTX = 32, 48, 2, 64
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["weather", "rain", "city", "mail", "letter", "music", "song", "the", "get", "send", "play"]


def metadata() -> dict[str, object]:
    letters = [f"\u2581{c}" for c in "abcdefghijklmnopqrstuvwxyz"] + list("abcdefghijklmnopqrstuvwxyz")
    tokens = [*SPECIAL, *letters, *(f"\u2581{word}" for word in WORDS)]
    return {
        "general.name": "tiny bert",
        "bert.block_count": N_LAYER,
        "bert.context_length": N_CTX,
        "bert.embedding_length": N_EMBD,
        "bert.feed_forward_length": N_FF,
        "bert.attention.head_count": 2,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
    }


def tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    n_vocab = len(metadata()["tokenizer.ggml.tokens"])  # type: ignore[arg-type]

    def matrix(rows: int, cols: int) -> np.ndarray:
        return (rng.standard_normal((rows, cols)) * cols**-0.5).astype(np.float32)

    def pair(name: str, n: int, weight: np.ndarray) -> dict[str, np.ndarray]:
        return {f"{name}.weight": weight, f"{name}.bias": (0.1 * rng.standard_normal(n)).astype(np.float32)}

    def norm(name: str) -> dict[str, np.ndarray]:
        return pair(name, N_EMBD, (1 + 0.2 * rng.standard_normal(N_EMBD)).astype(np.float32))

    out = {
        "token_embd.weight": matrix(n_vocab, N_EMBD) * 4,
        "position_embd.weight": matrix(N_CTX, N_EMBD),
        "token_types.weight": matrix(2, N_EMBD),
        **norm("token_embd_norm"),
    }
    for i in range(N_LAYER):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            out |= pair(f"blk.{i}.{name}", N_EMBD, matrix(N_EMBD, N_EMBD))
        out |= pair(f"blk.{i}.ffn_up", N_FF, matrix(N_FF, N_EMBD))
        out |= pair(f"blk.{i}.ffn_down", N_EMBD, matrix(N_EMBD, N_FF))
        out |= norm(f"blk.{i}.attn_output_norm") | norm(f"blk.{i}.layer_output_norm")
    return out


def write_tiny_bert(
    path: Path, *, seed: int = 0, drop: tuple[str, ...] = (), change: dict[str, object] | None = None
) -> Path:
    """Writes the model; `drop` leaves keys and tensors out, `change` replaces keys."""
    import gguf

    writer = gguf.GGUFWriter(path, "bert")
    for key, value in (metadata() | (change or {})).items():
        if key not in drop:
            add_key(writer, key, value)
    for name, array in tensors(seed).items():
        if name not in drop:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
