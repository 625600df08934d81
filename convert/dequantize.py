"""A llama-architecture GGUF file back to a Hugging Face checkpoint: float32 weights, config and tokenizer.

For small models that are published as GGUF only and are to be trained on. Lossless with respect to the file: every
stored value is written as the float that llama.cpp computes with. What quantization lost before stays lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from convert.errors import UnsupportedModel

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
_CONTROL = 3
# How tokenizer.json says what llama.cpp calls the pre-tokenizer of that name.
_PRE_TOKENIZERS: dict[str, list[dict[str, object]]] = {
    "smollm": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ]
}


def write_checkpoint(source: Path, folder: Path, *, chat_template: str | None = None) -> Path:
    """Writes config.json, model.safetensors, tokenizer.json and tokenizer_config.json below `folder`.

    chat_template: in place of the one in the file. Raises UnsupportedModel for another architecture or tokenizer.
    """
    from safetensors.numpy import save_file

    reader = gguf.GGUFReader(source)
    fields = _Fields(reader)
    if fields["general.architecture"] != "llama" or fields["tokenizer.ggml.model"] != "gpt2":
        raise UnsupportedModel(
            f"{source.name} is {fields['general.architecture']} with a {fields['tokenizer.ggml.model']} tokenizer; "
            "only llama with byte-level BPE can be written back to a checkpoint"
        )
    folder.mkdir(parents=True, exist_ok=True)
    n_head, n_head_kv = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    tensors = dict(_tensors(reader, n_head, n_head_kv))
    config = _config(fields, is_tied="lm_head.weight" not in tensors)
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer.json", _tokenizer(fields))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(fields, chat_template))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tokenizer_json(source: Path) -> dict[str, object]:
    """What tokenizer.json holds for a GGUF file's vocabulary. Raises UnsupportedModel for an unknown pre-tokenizer."""
    return _tokenizer(_Fields(gguf.GGUFReader(source)))


class _Fields:
    """Header values by name."""

    def __init__(self, reader: gguf.GGUFReader) -> None:
        self._reader = reader

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a header holds values of any type
        field = self._reader.get_field(name)
        if field is None:
            raise UnsupportedModel(f"the file's header lacks {name}")
        return field.contents()

    def get(self, name: str, default: object) -> Any:  # noqa: ANN401
        field = self._reader.get_field(name)
        return default if field is None else field.contents()


def _tensors(
    reader: gguf.GGUFReader, n_head: int, n_head_kv: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        match = _BLOCK.fullmatch(tensor.name)
        if match is None:
            yield _OTHER_NAMES[tensor.name], values
            continue
        heads = {"attn_q": n_head, "attn_k": n_head_kv}.get(match[2])
        name = f"model.layers.{match[1]}.{_BLOCK_NAMES[match[2]]}.weight"
        yield name, values if heads is None else _unpermuted(values, heads)


def _unpermuted(rows: NDArray[np.float32], n_head: int) -> NDArray[np.float32]:
    """Rows of q or k in the order of transformers: llama.cpp interleaves the two halves of each head."""
    n_rows, n_columns = rows.shape
    split = rows.reshape(n_head, n_rows // n_head // 2, 2, n_columns)
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(n_rows, n_columns))


def _config(fields: _Fields, *, is_tied: bool) -> dict[str, object]:
    n_head = fields["llama.attention.head_count"]
    n_embd = fields["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": n_embd,
        "head_dim": n_embd // n_head,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "num_attention_heads": n_head,
        "num_hidden_layers": fields["llama.block_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "rms_norm_eps": round(float(fields["llama.attention.layer_norm_rms_epsilon"]), 10),
        "rope_theta": float(fields["llama.rope.freq_base"]),
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id", None),
        "tie_word_embeddings": is_tied,
        "torch_dtype": "float32",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
    }


def _tokenizer(fields: _Fields) -> dict[str, object]:
    pre = fields["tokenizer.ggml.pre"]
    if pre not in _PRE_TOKENIZERS:
        raise UnsupportedModel(
            f"the pre-tokenizer {pre} is not known here; known: {', '.join(_PRE_TOKENIZERS)}"
        )
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id_, "content": token, **flags}
            for id_, (token, type_) in enumerate(zip(tokens, types, strict=True))
            if type_ == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _PRE_TOKENIZERS[pre]},
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
            "merges": fields["tokenizer.ggml.merges"],
        },
    }


def _tokenizer_config(fields: _Fields, chat_template: str | None) -> dict[str, object]:
    tokens = fields["tokenizer.ggml.tokens"]
    named = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    special: dict[str, object] = {}
    for gguf_name, name in named.items():
        if (id_ := fields.get(f"tokenizer.ggml.{gguf_name}_token_id", None)) is not None:
            special[f"{name}_token"] = tokens[id_]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "chat_template": chat_template or fields.get("tokenizer.chat_template", None),
        **special,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
