"""Sizes of a model's file before there is one: which tensors it has and which type each gets.

The types are those that llama.cpp's quantizer chooses (`llama_tensor_get_type` in src/llama-quant.cpp, commit
0c1e57098) for rows that divide by 256; a test compares with files that it wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from profiles.errors import UnknownShape
from profiles.shape import ModelShape, Use, WeightGroup, Weights, bytes_of

QUANTIZATIONS = ("Q8_0", "Q4_K_M", "BF16")
# Metadata are mostly vocabulary and merges: 10,958,368 bytes at 248,320 tokens, 5.9 MB at 151,936.
_METADATA_BYTES_PER_TOKEN = 44


@dataclass(frozen=True, slots=True)
class _Tensor:
    use: Use
    name: str
    rows: int
    columns: int
    layer: int = 0


def estimate_weights(shape: ModelShape, quantization: str, *, installed: bool = False) -> Weights:
    """The file of that quantization. Raises UnknownShape for one whose recipe is not known."""
    if quantization not in QUANTIZATIONS:
        raise UnknownShape(
            f"the size of a {quantization} file is not known; known are {', '.join(QUANTIZATIONS)}"
        )
    sizes: Counter[tuple[Use, str, bool]] = Counter()
    for tensor in _tensors(shape):
        ggml_type = _type_of(tensor, shape, quantization)
        multiplied = tensor.rows > 1 and tensor.name != "ssm_conv1d"
        sizes[tensor.use, ggml_type, multiplied] += tensor.rows * bytes_of(ggml_type, tensor.columns)
    groups = tuple(WeightGroup(use, kind, n, mult) for (use, kind, mult), n in sizes.items())
    metadata = shape.n_vocab * _METADATA_BYTES_PER_TOKEN
    return Weights(
        quantization=quantization,
        file_bytes=sum(group.n_bytes for group in groups) + metadata,
        groups=groups,
        measured=False,
        installed=installed,
    )


def _tensors(shape: ModelShape) -> Iterator[_Tensor]:
    e = shape.n_embd
    yield _Tensor("embedding", "token_embd", shape.n_vocab, e)
    if not shape.tied:
        yield _Tensor("output", "output", shape.n_vocab, e)
    yield _Tensor("layers", "output_norm", 1, e)
    for layer in range(shape.n_layer):
        for name, rows, columns in _block(shape, layer):
            yield _Tensor("layers", name, rows, columns, layer)


def _is_recurrent(shape: ModelShape, layer: int) -> bool:
    """Where the linear layers lie; only their order against the full ones matters for the types."""
    if shape.recurrent is None or not shape.n_attention_layer:
        return shape.recurrent is not None
    interval = max(1, round(shape.n_layer / shape.n_attention_layer))
    return (layer + 1) % interval != 0


def _block(shape: ModelShape, layer: int) -> Iterator[tuple[str, int, int]]:
    e, ff = shape.n_embd, shape.n_ff
    yield from (("norm", 1, e), ("norm", 1, e), ("ffn_gate", ff, e), ("ffn_up", ff, e), ("ffn_down", e, ff))
    if _is_recurrent(shape, layer):
        assert shape.recurrent is not None
        r = shape.recurrent
        channels = r.inner_size + 2 * r.group_count * r.state_size
        yield from (("attn_qkv", channels, e), ("attn_gate", r.inner_size, e), ("ssm_out", e, r.inner_size))
        yield from (("ssm_alpha", r.time_step_rank, e), ("ssm_beta", r.time_step_rank, e))
        yield from (
            ("ssm_a", 1, r.time_step_rank),
            ("ssm_dt", 1, r.time_step_rank),
            ("norm", 1, r.state_size),
        )
        yield ("ssm_conv1d", channels, r.conv_kernel)
        return
    gate = 2 if shape.architecture == "qwen35" else 1
    q, k, v = (
        shape.n_head * shape.head_dim_k,
        shape.n_head_kv * shape.head_dim_k,
        shape.n_head_kv * shape.head_dim_v,
    )
    yield from (("attn_q", gate * q, e), ("attn_k", k, e), ("attn_v", v, e))
    yield ("attn_output", e, shape.n_head * shape.head_dim_v)
    if shape.architecture != "llama":
        yield from (("norm", 1, shape.head_dim_k), ("norm", 1, shape.head_dim_k))


def _type_of(tensor: _Tensor, shape: ModelShape, quantization: str) -> str:
    if tensor.rows == 1 or tensor.name == "ssm_conv1d":
        return "F32"
    if quantization != "Q4_K_M":
        return quantization
    if tensor.name == "output" or (tensor.name == "token_embd" and shape.tied):
        return "Q6_K"
    # ffn_down counts by layer; attn_v and the fused attn_qkv are counted together, one a layer.
    if tensor.name in ("ffn_down", "attn_v", "attn_qkv") and layer_gets_more_bits(
        tensor.layer, shape.n_layer
    ):
        return "Q6_K"
    return "Q4_K"


def layer_gets_more_bits(index: int, n: int) -> bool:
    """Whether a layer keeps Q6_K in Q4_K_M: the first and last eighth, and every third between."""
    return index < n // 8 or index >= 7 * n // 8 or (index - n // 8) % 3 == 2
