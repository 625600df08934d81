"""Models of the real 4B sizes (Qwen3.5-4B, Qwen3-4B) with random weights, for timing and memory only.

Their vocabulary is that of another GGUF file, so that text is tokenized as a real tokenizer would, filled up with
unused tokens to the size that the real model has. They talk nonsense; a step costs what one of the real model costs.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from profiles.recipes import layer_gets_more_bits
from tests.tiny_gguf import TinyShape, add_key, metadata

SHAPES = {
    "qwen35": TinyShape(
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
    ),
    "qwen3": TinyShape(
        architecture="qwen3",
        n_layer=36,
        n_embd=2560,
        n_ff=9728,
        n_head=32,
        n_head_kv=8,
        head_dim=128,
        n_vocab=151_936,
        n_ctx=262_144,
    ),
}
FILE_TYPES = {"BF16": 32, "Q8_0": 7, "Q4_K": 14, "Q4_K_M": 15}  # general.file_type
_VOCABULARY = ("tokens", "token_type", "merges", "pre", "model", "eos_token_id")
_ROWS_AT_ONCE = 4096


def write_random_4b(
    path: Path,
    *,
    vocabulary_of: Path,
    architecture: str = "qwen35",
    quantization: str = "Q4_K",
    tied: bool = True,
    n_layer: int | None = None,
) -> Path:
    """Writes the model with the vocabulary of another file; 2.4 GB as Q4_K, a minute.

    n_layer: less than the real number of layers makes a smaller model of the same widths.
    quantization: Q8_0 and BF16 are one type throughout, Q4_K too; Q4_K_M mixes in Q6_K as llama.cpp's quantizer does.
    """
    shape = SHAPES[architecture] if n_layer is None else replace(SHAPES[architecture], n_layer=n_layer)
    writer = gguf.GGUFWriter(path, architecture)
    keys = {k: v for k, v in metadata_of_shape(shape).items() if "tokenizer" not in k}
    keys |= vocabulary(vocabulary_of, shape.n_vocab) | {"general.file_type": FILE_TYPES[quantization]}
    if architecture == "qwen35":
        keys |= {"qwen35.rope.dimension_sections": [11, 11, 10, 0], "qwen35.rope.dimension_count": 64}
    for key, value in keys.items():
        add_key(writer, key, value)
    tensors = tensor_shapes(shape, tied=tied)
    for name, dims in tensors:
        kind = type_of(name, dims, quantization, shape, tied=tied)
        byte_shape = (*dims[:-1], row_bytes(kind, dims[-1]))
        n_bytes = int(np.prod(byte_shape))
        if kind == GGMLQuantizationType.F32:
            writer.add_tensor_info(name, dims, np.dtype(np.float32), n_bytes)
        else:
            writer.add_tensor_info(name, byte_shape, np.dtype(np.uint8), n_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(0)
    for name, dims in tensors:
        writer.write_tensor_data(
            tensor_data(rng, name, dims, type_of(name, dims, quantization, shape, tied=tied))
        )
    writer.close()
    return path


def row_bytes(kind: GGMLQuantizationType, n_elements: int) -> int:
    block, size = GGML_QUANT_SIZES[kind]
    return n_elements // block * size


def type_of(
    name: str, dims: tuple[int, ...], quantization: str, shape: TinyShape, *, tied: bool
) -> GGMLQuantizationType:
    """The type that a tensor has in a file of that quantization."""
    if len(dims) == 1 or "conv1d" in name:
        return GGMLQuantizationType.F32
    if quantization != "Q4_K_M":
        return GGMLQuantizationType[quantization]
    if name == ("token_embd.weight" if tied else "output.weight"):
        return GGMLQuantizationType.Q6_K
    if any(part in name for part in ("ffn_down", "attn_v", "attn_qkv")):
        more = layer_gets_more_bits(int(name.split(".")[1]), shape.n_layer)
        return GGMLQuantizationType.Q6_K if more else GGMLQuantizationType.Q4_K
    return GGMLQuantizationType.Q4_K


def tensor_data(
    rng: np.random.Generator, name: str, dims: tuple[int, ...], kind: GGMLQuantizationType
) -> np.ndarray:
    """Random weights, small enough that activations stay finite."""
    if kind == GGMLQuantizationType.F32:
        return (0.5 + 0.1 * rng.standard_normal(dims)).astype(np.float32) * _sign(name)
    make = {"Q4_K": q4_k_blocks, "Q6_K": q6_k_blocks, "Q8_0": q8_0_blocks, "BF16": bf16_rows}[kind.name]
    parts = range(0, dims[0], _ROWS_AT_ONCE)
    return np.concatenate([make(rng, (min(_ROWS_AT_ONCE, dims[0] - i), dims[1])) for i in parts])


def _sign(name: str) -> float:
    return -1.0 if name.endswith("ssm_a") else 1.0


def metadata_of_shape(shape: TinyShape) -> dict[str, object]:
    """Keys of the real size, without paying for an invented vocabulary of that size."""
    values = {field.name: getattr(shape, field.name) for field in fields(shape)}
    return metadata(replace(TinyShape(**values), n_vocab=512), 0)


def vocabulary(path: Path, n_vocab: int) -> dict[str, object]:
    """The tokenizer's keys of a GGUF file, its tokens filled up to the size."""
    reader = gguf.GGUFReader(path)
    found: dict[str, object] = {}
    for name in _VOCABULARY:
        field = reader.fields.get(f"tokenizer.ggml.{name}")
        if field is not None:
            found[f"tokenizer.ggml.{name}"] = field.contents()
    tokens, types = list(found["tokenizer.ggml.tokens"]), list(found["tokenizer.ggml.token_type"])  # type: ignore[call-overload]
    n_more = n_vocab - len(tokens)
    found["tokenizer.ggml.tokens"] = tokens + [f"[PAD{i}]" for i in range(n_more)]
    found["tokenizer.ggml.token_type"] = [int(t) for t in types] + [5] * n_more
    return found


def tensor_shapes(s: TinyShape, *, tied: bool = True) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes (rows first) of the real model; of Qwen3.5, 24 linear and 8 full-attention layers."""
    e, hybrid = s.n_embd, s.architecture == "qwen35"
    key, value = s.n_key_heads * s.state_size, s.n_value_heads * s.state_size
    out: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (s.n_vocab, e)),
        ("output_norm.weight", (e,)),
    ]
    if not tied:
        out.append(("output.weight", (s.n_vocab, e)))
    for i in range(s.n_layer):
        block: list[tuple[str, tuple[int, ...]]] = [
            ("attn_norm.weight", (e,)),
            ("post_attention_norm.weight" if hybrid else "ffn_norm.weight", (e,)),
            ("ffn_gate.weight", (s.n_ff, e)),
            ("ffn_up.weight", (s.n_ff, e)),
            ("ffn_down.weight", (e, s.n_ff)),
        ]
        if hybrid and (i + 1) % s.interval:
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
                ("attn_q.weight", ((2 if hybrid else 1) * s.n_head * s.head_dim, e)),
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


def q6_k_blocks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random Q6_K rows of bytes: 6-bit values under small 8-bit sub-scales and one tiny scale."""
    n_elements, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType.Q6_K]
    rows, per_row = shape[0], shape[1] // n_elements
    blocks = rng.integers(0, 256, (rows * per_row, n_bytes), dtype=np.uint8)
    scale = np.float16(0.1 / (32 * 127 * shape[1] ** 0.5))
    blocks[:, -2:] = np.frombuffer(scale.tobytes(), np.uint8)
    return blocks.reshape(rows, per_row * n_bytes)


def q8_0_blocks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random Q8_0 rows of bytes: one scale, 32 values."""
    n_elements, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType.Q8_0]
    rows, per_row = shape[0], shape[1] // n_elements
    blocks = rng.integers(0, 256, (rows * per_row, n_bytes), dtype=np.uint8)
    blocks[:, :2] = np.frombuffer(np.float16(0.2 / (127 * shape[1] ** 0.5)).tobytes(), np.uint8)
    return blocks.reshape(rows, per_row * n_bytes)


def bf16_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random BF16 rows of bytes: the upper halves of small float32."""
    values = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.2 / shape[1] ** 0.5)
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
