"""A llama-architecture GGUF file back to a Hugging Face checkpoint: float32 weights, config and tokenizer.

For small models that are published as GGUF only and are to be trained on. Lossless with respect to the file: every
stored value is written as the float that llama.cpp computes with. What quantization lost before stays lost. What a
checkpoint of this kind cannot say (experts, scaled rope, biases) is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import gguf
import numpy as np
from numpy.typing import NDArray

from convert.errors import OutputError, UnsupportedModel
from convert.gguf_file import GgufFile, GgufTensor, read_gguf
from convert.safetensors_write import write_safetensors

Value = TypeVar("Value")
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_CONTROL, _USER_DEFINED = 3, 4
# How tokenizer.json says what llama.cpp calls the pre-tokenizer of that name.
_PRE_TOKENIZERS: dict[str, list[dict[str, object]]] = {
    "smollm": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ]
}


def write_checkpoint(source: Path, folder: Path, *, chat_template: str | None = None) -> Path:
    """Writes config.json, model.safetensors, tokenizer.json and tokenizer_config.json below `folder`.

    chat_template: in place of the one in the file. Everything is refused before the first file is written. Raises
    UnsupportedModel for another architecture or tokenizer, ConvertError for a damaged file, OutputError.
    """
    file = read_gguf(source)
    header = _Header(file)
    _refuse_what_is_lost(header)
    shape = _Shape.of(header)
    tensors = {_checkpoint_name(file, name): tensor for name, tensor in file.tensors.items()}
    config = _config(header, shape, is_tied="lm_head.weight" not in tensors)
    tokenizer, tokenizer_config = _tokenizer(header), _tokenizer_config(header, chat_template)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "config.json", config)
        _write_json(folder / "tokenizer.json", tokenizer)
        _write_json(folder / "tokenizer_config.json", tokenizer_config)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        weights = folder / "model.safetensors"
        write_safetensors(weights, shapes, lambda name: _values(tensors[name], shape))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def tokenizer_json(source: Path) -> dict[str, object]:
    """What tokenizer.json holds for a GGUF file's vocabulary. Raises UnsupportedModel for an unknown pre-tokenizer."""
    header = _Header(read_gguf(source))
    _refuse_what_is_lost(header)
    return _tokenizer(header)


class _Header:
    """Header values by name."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.name = file.path.name

    def get(self, key: str, kind: type[Value], default: Value | None = None) -> Value:
        """The value. Raises UnsupportedModel if it is not there and has no default, or is of another kind."""
        value = self._file.metadata.get(key, default)
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
        found = "lacks" if value is None else f"has a {type(value).__name__} as"
        raise UnsupportedModel(f"the header of {self.name} {found} {key}; wanted is {kind.__name__}")

    def has(self, key: str) -> bool:
        return bool(self._file.metadata.get(key))


@dataclass(frozen=True, slots=True)
class _Shape:
    """The numbers of attention."""

    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int

    @classmethod
    def of(cls, header: _Header) -> _Shape:
        n_embd = header.get("llama.embedding_length", int)
        n_head = header.get("llama.attention.head_count", int)
        if n_head <= 0 or n_embd % n_head:
            raise UnsupportedModel(f"{header.name} has {n_head} heads for {n_embd} columns")
        n_head_kv = header.get("llama.attention.head_count_kv", int, n_head)
        return cls(n_embd, n_head, n_head_kv, header.get("llama.attention.key_length", int, n_embd // n_head))


def _refuse_what_is_lost(header: _Header) -> None:
    """Raises UnsupportedModel for what the checkpoint would not say."""
    architecture, model = header.get("general.architecture", str), header.get("tokenizer.ggml.model", str)
    if architecture != "llama" or model != "gpt2":
        raise UnsupportedModel(
            f"{header.name} is {architecture} with a {model} tokenizer; "
            "only llama with byte-level BPE can be written back to a checkpoint"
        )
    if (pre := header.get("tokenizer.ggml.pre", str)) not in _PRE_TOKENIZERS:
        raise UnsupportedModel(
            f"the pre-tokenizer {pre} is not known here; known: {', '.join(_PRE_TOKENIZERS)}"
        )
    if header.get("llama.rope.scaling.type", str, "none") != "none":
        raise UnsupportedModel(f"{header.name} scales rope, which is not written back")
    lost = ("llama.expert_count", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token")
    if found := [key for key in lost if header.has(key)]:
        raise UnsupportedModel(f"{header.name} has {found[0]}, which is not written back")


def _checkpoint_name(file: GgufFile, name: str) -> str:
    """The tensor's name in transformers. Raises UnsupportedModel for one that a llama checkpoint does not have."""
    tensor = file.tensors[name]
    if gguf.GGMLQuantizationType[tensor.type] not in _readable_types():
        raise UnsupportedModel(f"{file.path.name} has {name} in {tensor.type}, which cannot be read here")
    if found := _OTHER_NAMES.get(name):
        return found
    match = _BLOCK.fullmatch(name)
    if match is None or match[2] not in _BLOCK_NAMES:
        raise UnsupportedModel(f"{file.path.name} has the tensor {name}, which plain llama does not have")
    return f"model.layers.{match[1]}.{_BLOCK_NAMES[match[2]]}.weight"


def _readable_types() -> set[gguf.GGMLQuantizationType]:
    floats = {gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16}
    return floats | set(gguf.quants._type_traits)


def _values(tensor: GgufTensor, shape: _Shape) -> NDArray[np.float32]:
    """The tensor as floats, in the order of transformers."""
    raw = tensor.read_rows(0, tensor.n_rows)
    kind = gguf.GGMLQuantizationType[tensor.type]
    values = gguf.quants.dequantize(raw, kind).astype(np.float32, copy=False).reshape(tensor.shape)
    if tensor.name.endswith(".attn_q.weight"):
        return _unpermuted(values, shape.n_head)
    return _unpermuted(values, shape.n_head_kv) if tensor.name.endswith(".attn_k.weight") else values


def _unpermuted(rows: NDArray[np.float32], n_head: int) -> NDArray[np.float32]:
    """Rows of q or k in the order of transformers: llama.cpp interleaves the two halves of each head."""
    n_rows, n_columns = rows.shape
    split = rows.reshape(n_head, n_rows // n_head // 2, 2, n_columns)
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(n_rows, n_columns))


def _config(header: _Header, shape: _Shape, *, is_tied: bool) -> dict[str, object]:
    epsilon = header.get("llama.attention.layer_norm_rms_epsilon", float)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.n_embd,
        "head_dim": shape.head_dim,
        "intermediate_size": header.get("llama.feed_forward_length", int),
        "max_position_embeddings": header.get("llama.context_length", int),
        "num_attention_heads": shape.n_head,
        "num_hidden_layers": header.get("llama.block_count", int),
        "num_key_value_heads": shape.n_head_kv,
        "rms_norm_eps": round(epsilon, 10),  # stored as float32: 9.999999747e-06
        "rope_theta": header.get("llama.rope.freq_base", float, 10000.0),
        "bos_token_id": header.get("tokenizer.ggml.bos_token_id", int),
        "eos_token_id": header.get("tokenizer.ggml.eos_token_id", int),
        **_optional_pad(header),
        "tie_word_embeddings": is_tied,
        "torch_dtype": "float32",
        "vocab_size": len(header.get("tokenizer.ggml.tokens", list)),
    }


def _optional_pad(header: _Header) -> dict[str, object]:
    id_ = header.get("tokenizer.ggml.padding_token_id", int, -1)
    return {"pad_token_id": id_} if id_ >= 0 else {}


def _tokenizer(header: _Header) -> dict[str, object]:
    tokens, types = header.get("tokenizer.ggml.tokens", list), header.get("tokenizer.ggml.token_type", list)
    if len(tokens) != len(types):
        raise UnsupportedModel(f"{header.name} has {len(tokens)} tokens and {len(types)} token types")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    pre = _PRE_TOKENIZERS[header.get("tokenizer.ggml.pre", str)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id_, "content": token, **flags, "special": type_ == _CONTROL}
            for id_, (token, type_) in enumerate(zip(tokens, types, strict=True))
            if type_ in (_CONTROL, _USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: id_ for id_, token in enumerate(tokens)},
            "merges": header.get("tokenizer.ggml.merges", list),
        },
    }


def _tokenizer_config(header: _Header, chat_template: str | None) -> dict[str, object]:
    tokens = header.get("tokenizer.ggml.tokens", list)
    named = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    special: dict[str, object] = {}
    for gguf_name, name in named.items():
        id_ = header.get(f"tokenizer.ggml.{gguf_name}_token_id", int, -1)
        if id_ >= len(tokens):
            raise UnsupportedModel(f"{header.name} has {id_} as its {name} token, of {len(tokens)} tokens")
        if id_ >= 0:
            special[f"{name}_token"] = tokens[id_]
    template = chat_template or header.get("tokenizer.chat_template", str, "") or None
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": header.get("llama.context_length", int),
        "chat_template": template,
        **special,
    }


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
