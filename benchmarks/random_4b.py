"""A model of the Qwen3.5-4B configuration with random Q4_K weights, for timing only. 2.4 GB, a minute to write.

Its vocabulary is that of another GGUF file, so that text is tokenized as a real tokenizer would, filled up with unused
tokens to the 248,320 that the real model has. It talks nonsense; a step costs what one of the real model costs.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from tests.tiny_gguf import TinyShape, add_key, metadata

SHAPE = TinyShape(
    architecture="qwen35",
    n_layer=32,
    n_embd=2560,
    n_ff=9216,
    n_head=16,
    n_head_kv=4,
    head_dim=256,
    n_vocab=248_320,
    n_ctx=262_144,
    n_key_heads=16,
    n_value_heads=32,
    state_size=128,
    interval=4,
)
_VOCABULARY = ("tokens", "token_type", "merges", "pre", "model", "eos_token_id")


def write_random_4b(path: Path, *, vocabulary_of: Path) -> Path:
    """Writes the model with the vocabulary of another file."""
    writer = gguf.GGUFWriter(path, "qwen35")
    keys = {k: v for k, v in metadata(TinyShape(architecture="qwen35"), 0).items() if "tokenizer" not in k}
    keys |= {k: v for k, v in metadata_of_shape().items() if "tokenizer" not in k}
    keys |= vocabulary(vocabulary_of) | {"qwen35.rope.dimension_sections": [11, 11, 10, 0]}
    for key, value in keys.items():
        add_key(writer, key, value)
    rng = np.random.default_rng(0)
    for name, shape in tensor_shapes():
        if len(shape) == 1 or "conv1d" in name:
            writer.add_tensor(name, (0.5 + 0.1 * rng.standard_normal(shape)).astype(np.float32) * _sign(name))
        else:
            kind = GGMLQuantizationType.Q4_K
            writer.add_tensor(name, q4_k_blocks(rng, shape), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _sign(name: str) -> float:
    return -1.0 if name.endswith("ssm_a") else 1.0


def metadata_of_shape() -> dict[str, object]:
    """Keys of the real size, without paying for an invented vocabulary of that size."""
    small = TinyShape(**{**{f: getattr(SHAPE, f) for f in SHAPE.__dataclass_fields__}, "n_vocab": 512})
    return metadata(small, 0)


def vocabulary(path: Path) -> dict[str, object]:
    """The tokenizer's keys of a GGUF file, its tokens filled up to the size."""
    reader = gguf.GGUFReader(path)
    found: dict[str, object] = {}
    for name in _VOCABULARY:
        field = reader.fields.get(f"tokenizer.ggml.{name}")
        if field is not None:
            found[f"tokenizer.ggml.{name}"] = field.contents()
    tokens, types = list(found["tokenizer.ggml.tokens"]), list(found["tokenizer.ggml.token_type"])  # type: ignore[call-overload]
    n_more = SHAPE.n_vocab - len(tokens)
    found["tokenizer.ggml.tokens"] = tokens + [f"[PAD{i}]" for i in range(n_more)]
    found["tokenizer.ggml.token_type"] = [int(t) for t in types] + [5] * n_more
    return found


def tensor_shapes() -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes (rows first) of the real model: tied embedding, 24 linear and 8 full-attention layers."""
    s, e = SHAPE, SHAPE.n_embd
    key, value = s.n_key_heads * s.state_size, s.n_value_heads * s.state_size
    out: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (s.n_vocab, e)),
        ("output_norm.weight", (e,)),
    ]
    for i in range(s.n_layer):
        block: list[tuple[str, tuple[int, ...]]] = [
            ("attn_norm.weight", (e,)),
            ("post_attention_norm.weight", (e,)),
            ("ffn_gate.weight", (s.n_ff, e)),
            ("ffn_up.weight", (s.n_ff, e)),
            ("ffn_down.weight", (e, s.n_ff)),
        ]
        if (i + 1) % s.interval:
            block += [
                ("attn_qkv.weight", (2 * key + value, e)),
                ("attn_gate.weight", (value, e)),
                ("ssm_alpha.weight", (s.n_value_heads, e)),
                ("ssm_beta.weight", (s.n_value_heads, e)),
                ("ssm_a", (s.n_value_heads,)),
                ("ssm_dt.bias", (s.n_value_heads,)),
                ("ssm_conv1d.weight", (2 * key + value, s.conv_kernel)),
                ("ssm_norm.weight", (s.state_size,)),
                ("ssm_out.weight", (e, value)),
            ]
        else:
            block += [
                ("attn_q.weight", (2 * s.n_head * s.head_dim, e)),
                ("attn_k.weight", (s.n_head_kv * s.head_dim, e)),
                ("attn_v.weight", (s.n_head_kv * s.head_dim, e)),
                ("attn_output.weight", (e, s.n_head * s.head_dim)),
                ("attn_q_norm.weight", (s.head_dim,)),
                ("attn_k_norm.weight", (s.head_dim,)),
            ]
        out += [(f"blk.{i}.{name}", shape) for name, shape in block]
    return out


def q4_k_blocks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random Q4_K rows of bytes: random nibbles and sub-scales under scales that keep activations finite."""
    n_elements, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType.Q4_K]
    rows, per_row = shape[0], shape[1] // n_elements
    blocks = rng.integers(0, 256, (rows * per_row, n_bytes), dtype=np.uint8)
    scale = np.float16(0.1 / (15 * 63 * shape[1] ** 0.5))
    blocks[:, 0:2] = np.frombuffer(scale.tobytes(), np.uint8)  # d
    blocks[:, 2:4] = np.frombuffer(np.float16(float(scale) * 7.5).tobytes(), np.uint8)  # dmin
    return blocks.reshape(rows, per_row * n_bytes)
