"""Tiny seeded checkpoints that are sensitive: every transform that goes missing moves the logits.

A default initialisation is not: with tied, large embeddings the next token is the input token whatever the layers do.
Only numpy makes the weights (the frozen RandomState), so that the logits that transformers gave once stay comparable.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

N_VOCAB = 304
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED = ("<think>", "</think>", "<tool_call>", "</tool_call>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_WORDS = (
    " the",
    " tool",
    " call",
    "name",
    "हिन्दी",
    " größe",
    "123",
)  # the marks of हिन्दी tell qwen35 from qwen2


@dataclass(frozen=True)
class Tiny:
    """One checkpoint: its config.json, the seed of its weights and how they are stored."""

    config: dict[str, object]
    seed: int = 1
    kind: str = "BF16"
    split: str = QWEN2_SPLIT
    pre: str = "qwen2"
    extra: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # tensors that are not converted
    prefix: str = "model."

    @property
    def text(self) -> dict[str, object]:
        nested = self.config.get("text_config")
        return nested if isinstance(nested, dict) else self.config


def _qwen35(**changes) -> dict[str, object]:
    config = {
        "architectures": ["Qwen3_5ForCausalLM"],
        "model_type": "qwen3_5_text",
        "vocab_size": N_VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_conv_kernel_dim": 4,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [3, 3, 2],
            "mrope_interleaved": True,
        },
    }
    return {**config, **changes}


def _dense(architecture: str, model_type: str, **changes) -> dict[str, object]:
    config = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": N_VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "rope_theta": 10000.0,
    }
    return {**config, **changes}


_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LINEAR, _FULL = "linear_attention", "full_attention"

TINY: dict[str, Tiny] = {
    "qwen35-equal": Tiny(_qwen35(linear_num_value_heads=2), seed=11, split=QWEN35_SPLIT, pre="qwen35"),
    "qwen35-double": Tiny(_qwen35(), seed=12, split=QWEN35_SPLIT, pre="qwen35"),
    "qwen35-triple-untied": Tiny(
        _qwen35(linear_num_value_heads=6, tie_word_embeddings=False),
        seed=13,
        split=QWEN35_SPLIT,
        pre="qwen35",
    ),
    "qwen35-irregular": Tiny(
        _qwen35(num_hidden_layers=5, layer_types=[_FULL, _LINEAR, _LINEAR, _FULL, _LINEAR]),
        seed=14,
        split=QWEN35_SPLIT,
        pre="qwen35",
    ),
    "qwen35-real-heads": Tiny(
        _qwen35(
            num_hidden_layers=2,
            layer_types=[_LINEAR, _FULL],
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=256,
            linear_num_key_heads=1,
            linear_num_value_heads=2,
            linear_key_head_dim=128,
            linear_value_head_dim=128,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000000.0,
                "partial_rotary_factor": 0.25,
                "mrope_section": [11, 11, 10],
                "mrope_interleaved": True,
            },
        ),
        seed=15,
        split=QWEN35_SPLIT,
        pre="qwen35",
    ),
    "qwen35-vision": Tiny(
        {
            "architectures": ["Qwen3_5ForConditionalGeneration"],
            "model_type": "qwen3_5",
            "tie_word_embeddings": True,
            "text_config": _qwen35(mtp_num_hidden_layers=1),
            "vision_config": {
                "model_type": "qwen3_5",
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": 64,
            },
        },
        seed=16,
        split=QWEN35_SPLIT,
        pre="qwen35",
        prefix="model.language_model.",
        extra={"model.visual.pos_embed.weight": (2304, 32), "mtp.fc.weight": (64, 128)},
    ),
    "qwen3-tied": Tiny(_dense("Qwen3ForCausalLM", "qwen3", head_dim=32), seed=21),
    "qwen3-untied": Tiny(
        _dense("Qwen3ForCausalLM", "qwen3", head_dim=32, tie_word_embeddings=False), seed=22, kind="F32"
    ),
    "qwen2": Tiny(_dense("Qwen2ForCausalLM", "qwen2"), seed=31),
    "llama": Tiny(_dense("LlamaForCausalLM", "llama", tie_word_embeddings=False), seed=41, kind="F16"),
    "llama3-rope": Tiny(_dense("LlamaForCausalLM", "llama", rope_scaling=_LLAMA3_ROPE), seed=42),
}

# Short enough for a fast test, long enough for rope and the recurrent state to matter.
PROMPTS: tuple[tuple[int, ...], ...] = tuple(
    tuple(int(i) for i in np.random.RandomState(seed).randint(0, 256, size=size))
    for seed, size in ((1, 1), (2, 9), (3, 130))
)
# (prompt, position) of the logits that are compared.
COMPARED = ((0, 0), (1, 3), (1, 8), (2, 40), (2, 100), (2, 129))


def write_tiny(folder: Path, tiny: Tiny, *, n_shards: int = 1) -> Path:
    """The checkpoint in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny.config))
    write_tokenizer(folder, tiny.split)
    write_weights(folder, stored(weights(tiny), tiny.kind), n_shards)
    return folder


def weights(tiny: Tiny) -> dict[str, np.ndarray]:
    """Every tensor by its name in the checkpoint, float32."""
    random = np.random.RandomState(tiny.seed)
    shapes = {**tensor_shapes(tiny.text, tiny.prefix), **tiny.extra}
    is_centred = str(tiny.text["model_type"]).startswith("qwen3_5")
    return {name: _values(random, name, shape, is_centred) for name, shape in shapes.items()}


def _values(random: np.random.RandomState, name: str, shape: tuple[int, ...], is_centred: bool) -> np.ndarray:
    if name.endswith("A_log"):
        return np.log(random.uniform(0.1, 16, shape)).astype(np.float32)
    if name.endswith("dt_bias"):
        return random.normal(-2, 1.5, shape).astype(np.float32)
    if name.endswith("conv1d.weight"):
        return random.normal(0, 0.5, shape).astype(np.float32)
    if name.endswith(("norm.weight", "layernorm.weight")):
        around = 0.0 if is_centred and not name.endswith("linear_attn.norm.weight") else 1.0
        return random.normal(around, 0.2, shape).astype(np.float32)
    if name.endswith((".bias", "embed_tokens.weight", "lm_head.weight")):
        return random.normal(0, 0.15, shape).astype(np.float32)
    return random.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)


def tensor_shapes(config: Mapping[str, object], prefix: str = "model.") -> dict[str, tuple[int, ...]]:
    """Names and shapes as transformers saves them, by hand and not from the code under test."""
    n_embd, n_ff, n_vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    shapes = {f"{prefix}embed_tokens.weight": (n_vocab, n_embd)}
    for i in range(config["num_hidden_layers"]):
        layer = f"{prefix}layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = (n_embd,)
        kinds = config.get("layer_types")
        shapes.update(
            _linear_shapes(f"{layer}.linear_attn", config)
            if kinds and kinds[i] == _LINEAR
            else _attention_shapes(f"{layer}.self_attn", config)
        )
        shapes[f"{layer}.post_attention_layernorm.weight"] = (n_embd,)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (n_ff, n_embd)
        shapes[f"{layer}.mlp.up_proj.weight"] = (n_ff, n_embd)
        shapes[f"{layer}.mlp.down_proj.weight"] = (n_embd, n_ff)
    shapes[f"{prefix}norm.weight"] = (n_embd,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (n_vocab, n_embd)
    return shapes


def _attention_shapes(name: str, config: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    n_embd, heads, n_kv = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or n_embd // heads
    gated = 2 if config["model_type"] == "qwen3_5_text" else 1
    rows = {"q": heads * dim * gated, "k": n_kv * dim, "v": n_kv * dim}
    shapes = {f"{name}.{letter}_proj.weight": (size, n_embd) for letter, size in rows.items()}
    if config["model_type"] == "qwen2":
        shapes.update({f"{name}.{letter}_proj.bias": (size,) for letter, size in rows.items()})
    shapes[f"{name}.o_proj.weight"] = (n_embd, heads * dim)
    if str(config["model_type"]).startswith("qwen3"):
        shapes[f"{name}.q_norm.weight"] = shapes[f"{name}.k_norm.weight"] = (dim,)
    return shapes


def _linear_shapes(name: str, config: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    n_embd, n_k, n_v = config["hidden_size"], config["linear_num_key_heads"], config["linear_num_value_heads"]
    dim = config["linear_key_head_dim"]
    mixed, values = (2 * n_k + n_v) * dim, n_v * dim
    return {
        f"{name}.in_proj_qkv.weight": (mixed, n_embd),
        f"{name}.in_proj_z.weight": (values, n_embd),
        f"{name}.in_proj_a.weight": (n_v, n_embd),
        f"{name}.in_proj_b.weight": (n_v, n_embd),
        f"{name}.conv1d.weight": (mixed, 1, config["linear_conv_kernel_dim"]),
        f"{name}.A_log": (n_v,),
        f"{name}.dt_bias": (n_v,),
        f"{name}.norm.weight": (dim,),
        f"{name}.out_proj.weight": (n_embd, values),
    }


def bf16_bits(values: np.ndarray) -> np.ndarray:
    """Round to nearest even, one value at a time in plain arithmetic: apart from the code under test."""
    high = values.astype(np.float32).view(np.uint32)
    low = high & np.uint32(0xFFFF)
    up = (low > 0x8000) | ((low == 0x8000) & ((high >> 16) & 1 == 1))
    return ((high >> 16) + up).astype(np.uint16)


def stored(tensors: Mapping[str, np.ndarray], kind: str) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name to (type, shape, bytes). A_log stays F32, as in the published checkpoints."""
    encode = {"F32": lambda v: v, "F16": lambda v: v.astype(np.float16), "BF16": bf16_bits}
    kinds = {name: "F32" if name.endswith("A_log") else kind for name in tensors}
    return {
        name: (kinds[name], values.shape, np.ascontiguousarray(encode[kinds[name]](values)).tobytes())
        for name, values in tensors.items()
    }


def save(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """One safetensors file, written by its specification: length, JSON header, data."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for *_, data in tensors.values()))


def write_weights(folder: Path, tensors, n_shards: int = 1) -> None:
    if n_shards == 1:
        save(folder / "model.safetensors", tensors)
        return
    names, weight_map = list(tensors), {}
    for shard in range(n_shards):
        file = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::n_shards]}
        save(folder / file, part)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_tokenizer(folder: Path, split: str = QWEN2_SPLIT) -> None:
    """Byte-level BPE with a few merges: real enough for a pre-tokenizer to matter."""
    vocabulary, merges = _bpe()
    n_plain = len(vocabulary)
    added = [
        {
            "id": n_plain + i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token in SPECIAL,
        }
        for i, token in enumerate((*SPECIAL, *ADDED))
    ]
    pre_tokenizer = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        ],
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [list(merge) for merge in merges]}
    content = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": pre_tokenizer,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": model,
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ends = [n_plain + SPECIAL.index("<|im_end|>"), n_plain + SPECIAL.index("<|endoftext|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))


def _bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    alphabet = _byte_letters()
    vocabulary = {alphabet[byte]: byte for byte in range(256)}
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        letters = [_merged([alphabet[byte] for byte in letter.encode()], merges) for letter in word]
        _merged(letters, merges)
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    return vocabulary, merges


def _merged(pieces: list[str], merges: list[tuple[str, str]]) -> str:
    """The pieces joined from the left; each join becomes a merge if it is not one already."""
    whole = pieces[0]
    for piece in pieces[1:]:
        if (whole, piece) not in merges:
            merges.append((whole, piece))
        whole += piece
    return whole


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + i) for i, byte in enumerate(others)}
