"""What keeps a GGUF model from being run, found in its header alone.

llama.cpp loads some incomplete files and aborts the process later, at the first decode. What is checked here is
therefore what its loader does not check, or says in words that help nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from edge.engine.gguf_header import GgufHeader, SkippedArray, label
from edge.errors import ModelError

SUPPORTED_ARCHITECTURES = ("llama", "qwen3", "qwen35")
F32 = 0


class _Unfit(Exception):
    """Why the model cannot be run; becomes a ModelError with the file's name."""


# What each architecture computes with in a block; (suffix, must be F32).
_COMMON = (
    ("attn_norm.weight", True),
    ("ffn_gate.weight", False),
    ("ffn_up.weight", False),
    ("ffn_down.weight", False),
)
_ATTENTION = (
    ("attn_q.weight", False),
    ("attn_k.weight", False),
    ("attn_v.weight", False),
    ("attn_output.weight", False),
)
_QK_NORM = (("attn_q_norm.weight", True), ("attn_k_norm.weight", True))
_LINEAR = (
    ("attn_qkv.weight", False), ("attn_gate.weight", False), ("ssm_conv1d.weight", True), ("ssm_dt.bias", True),
    ("ssm_a", True), ("ssm_alpha.weight", False), ("ssm_beta.weight", False), ("ssm_norm.weight", True),
    ("ssm_out.weight", False),
)  # fmt: skip


_NEXTN = (("nextn.eh_proj.weight", False), ("nextn.enorm.weight", True), ("nextn.hnorm.weight", True))


def check_runnable(header: GgufHeader) -> None:
    """Raises ModelError for what llama.cpp would refuse late, or not refuse and abort on."""
    if reason := _foreign(header):
        raise ModelError(f"{header.path} cannot be run: {reason}")
    with _translated(header):
        _check_extent(header)
        _check_numbers(header)
        _check_vocabulary(header)
        _check_blocks(header)


def check_whole(header: GgufHeader) -> None:
    """Raises ModelError for a file whose tensors reach beyond its end; asks nothing of its architecture."""
    with _translated(header):
        _check_extent(header)


@contextmanager
def _translated(header: GgufHeader) -> Iterator[None]:
    try:
        yield
    except _Unfit as exc:
        raise ModelError(f"{header.path} cannot be run: {exc}; convert or download it again") from None


def _foreign(header: GgufHeader) -> str | None:
    """Why this is another kind of file than a model that runs here; None if it is one."""
    kind, arch = header.metadata.get("general.type"), header.architecture
    if kind == "adapter":
        return (
            "it is a LoRA adapter, not a model: merge it with smoltools-edge convert CHECKPOINT --adapter DIR"
        )
    if arch not in SUPPORTED_ARCHITECTURES:
        found = f"architecture {arch[:40]!a}" if arch else "no general.architecture"
        return f"it has {found}; supported are {', '.join(SUPPORTED_ARCHITECTURES)}"
    n_parts = header.metadata.get("split.count")
    if isinstance(n_parts, int) and n_parts > 1:
        return f"it is one of {n_parts} parts of a split model: merge them with llama-gguf-split --merge"
    return None


def _check_extent(header: GgufHeader) -> None:
    for tensor in header.tensors.values():
        n_rows = 1
        for n in tensor.shape[1:]:
            n_rows *= n
        n_row_bytes = row_bytes(tensor.ggml_type, tensor.shape[0] if tensor.shape else 1)
        if n_row_bytes is None or not all(tensor.shape):
            raise _Unfit(f"tensor {label(tensor.name)} has type {tensor.ggml_type} and shape {tensor.shape}")
        end = header.data_offset + tensor.offset + n_row_bytes * n_rows
        if end > header.file_bytes:
            missing = end - header.file_bytes
            raise _Unfit(
                f"the file is truncated: tensor {label(tensor.name)} ends {missing} bytes beyond its end"
            )


def row_bytes(ggml_type: int, n_elements: int) -> int | None:
    """Bytes of a row; None for a type that there is not, and for a row that is no multiple of the type's block."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(ggml_type)]
    except (ValueError, KeyError):
        return None
    return None if n_elements % block else n_elements // block * size


def _check_numbers(header: GgufHeader) -> None:
    needed = ["block_count", "context_length", "embedding_length", "attention.head_count"]
    if header.architecture == "qwen35":
        needed += [
            "ssm.conv_kernel",
            "ssm.state_size",
            "ssm.group_count",
            "ssm.time_step_rank",
            "ssm.inner_size",
        ]
    for key in needed:
        value = header.number(key)
        if value is None or not 0 < value < 1 << 31:
            found = "is missing" if value is None else f"is {value}"
            raise _Unfit(f"{header.architecture}.{key} {found}")
    if header.architecture == "qwen35":
        _check_qwen35(header)


def _check_qwen35(header: GgufHeader) -> None:
    sections = header.metadata.get("qwen35.rope.dimension_sections")
    if not isinstance(sections, list) or len(sections) != 4 or not any(sections):
        raise _Unfit(f"qwen35.rope.dimension_sections is {sections!r}, four numbers, not all 0, are needed")
    if header.number("full_attention_interval") == 0:  # the loader divides by it
        raise _Unfit("qwen35.full_attention_interval is 0")
    n_block, n_mtp = header.number("block_count") or 0, n_mtp_blocks(header)
    if not 0 <= n_mtp < n_block:  # the loader aborts
        raise _Unfit(f"qwen35.nextn_predict_layers is {n_mtp} of {n_block} blocks")
    layers = header.metadata.get("qwen35.attention.recurrent_layers")
    if isinstance(layers, list) and len(layers) != n_block:
        raise _Unfit(
            f"qwen35.attention.recurrent_layers tells of {len(layers)} layers, block_count is {n_block}"
        )


def n_mtp_blocks(header: GgufHeader) -> int:
    """Blocks at the end that predict further tokens; they are loaded and not used."""
    return header.number("nextn_predict_layers") or 0 if header.architecture == "qwen35" else 0


def _check_vocabulary(header: GgufHeader) -> None:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, SkippedArray) or not tokens.length:
        raise _Unfit("it has no vocabulary (tokenizer.ggml.tokens)")
    types = header.metadata.get("tokenizer.ggml.token_type")
    n_types = (
        types.length if isinstance(types, SkippedArray) else len(types) if isinstance(types, list) else None
    )
    if n_types is not None and n_types != tokens.length:
        raise _Unfit(f"it has {tokens.length} tokens and types for {n_types} (tokenizer.ggml.token_type)")
    table = header.tensors.get("token_embd.weight")
    n_embd = header.number("embedding_length")
    if table is not None and table.shape != (n_embd, tokens.length):
        raise _Unfit(
            f"tensor token_embd.weight has the shape {table.shape}, "
            f"{tokens.length} tokens of embedding_length {n_embd} need {(n_embd, tokens.length)}"
        )
    _check_end_token(header, tokens.length)


def _check_end_token(header: GgufHeader, n_tokens: int) -> None:
    """Without a usable id llama.cpp takes token 11 of a BPE vocabulary for the end, whatever that is."""
    for key in ("eos", "eot", "eom", "bos", "padding", "unknown"):
        value = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if value is None and not (key == "eos" and header.metadata.get("tokenizer.ggml.model") == "gpt2"):
            continue
        if not isinstance(value, int) or not 0 <= value < n_tokens:
            found = "is missing" if value is None else f"is {value}"
            raise _Unfit(
                f"tokenizer.ggml.{key}_token_id {found}; a number from 0 to {n_tokens - 1} is needed"
            )


def _check_blocks(header: GgufHeader) -> None:
    n_block = header.number("block_count") or 0
    listed = {int(m[1]) for name in header.tensors if (m := re.match(r"blk\.(\d{1,9})\.", name))}
    if listed and n_block != max(listed) + 1:
        has_mtp = any(".nextn." in name for name in header.tensors)
        hint = (
            " (a multi-token-prediction block was counted but not stored)"
            if n_block > max(listed) + 1
            else ""
        )
        hint = " (one is for multi-token prediction and was not counted)" if has_mtp and not hint else hint
        raise _Unfit(
            f"{header.architecture}.block_count is {n_block}, the tensors have {max(listed) + 1} blocks{hint}"
        )
    for name in ("token_embd.weight", "output_norm.weight"):
        _require(header, name, must_be_f32=name.endswith("norm.weight"))
    for block in range(n_block):
        for suffix, must_be_f32 in _block_tensors(header, block):
            _require(header, f"blk.{block}.{suffix}", must_be_f32)


def _block_tensors(header: GgufHeader, block: int) -> tuple[tuple[str, bool], ...]:
    if header.architecture == "llama":
        return (*_COMMON, *_ATTENTION, ("ffn_norm.weight", True))
    if header.architecture == "qwen3":
        return (*_COMMON, *_ATTENTION, *_QK_NORM, ("ffn_norm.weight", True))
    if block >= (header.number("block_count") or 0) - n_mtp_blocks(header):
        return (*_COMMON, *_ATTENTION, *_QK_NORM, *_NEXTN, ("post_attention_norm.weight", True))
    mixer = _LINEAR if _is_recurrent(header, block) else (*_ATTENTION, *_QK_NORM)
    return (*_COMMON, *mixer, ("post_attention_norm.weight", True))


def _is_recurrent(header: GgufHeader, block: int) -> bool:
    layers = header.metadata.get("qwen35.attention.recurrent_layers")
    if isinstance(layers, list) and block < len(layers):
        return bool(layers[block])
    interval = header.number("full_attention_interval") or 4
    return (block + 1) % interval != 0


def _require(header: GgufHeader, name: str, must_be_f32: bool) -> None:
    tensor = header.tensors.get(name)
    if tensor is None:
        raise _Unfit(f"tensor {name} is missing")
    if must_be_f32 and tensor.ggml_type != F32:
        raise _Unfit(f"tensor {name} has ggml type {tensor.ggml_type}, only F32 can be computed with")
