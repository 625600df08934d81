"""What every architecture module provides, and the parts that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from convert.errors import UnsupportedModel
from convert.plan import Field, TensorPlan, copied


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Typed access to config.json. Nested text configs and old and new places of rope values read alike."""

    architecture: str
    values: Mapping[str, Any]

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> ModelConfig:
        names = config.get("architectures") or []
        text = config.get("text_config")
        values = {**config, **text} if isinstance(text, Mapping) else dict(config)
        # The class that holds the head reads the outer value; the inner one is often a default.
        if "tie_word_embeddings" in config:
            values["tie_word_embeddings"] = config["tie_word_embeddings"]
        return cls(architecture=str(names[0]) if names else "", values=values)

    def integer(self, key: str, default: int | None = None, *, limit: int = 2**20) -> int:
        """A whole number up to `limit`; anything else is refused, so that no plan grows without bound."""
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
            raise UnsupportedModel(f"config.json: {key} is {value!r}, a whole number up to {limit} is needed")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UnsupportedModel(f"config.json: {key} is {value!r}, a number is needed")
        return float(value)

    @property
    def n_layers(self) -> int:
        return self.integer("num_hidden_layers", limit=4096)

    @property
    def n_embd(self) -> int:
        return self.integer("hidden_size")

    @property
    def n_ff(self) -> int:
        return self.integer("intermediate_size")

    @property
    def n_head(self) -> int:
        return self.integer("num_attention_heads")

    @property
    def n_head_kv(self) -> int:
        return self.integer("num_key_value_heads", self.n_head)

    @property
    def head_dim(self) -> int:
        return self.integer("head_dim", self.n_embd // max(self.n_head, 1))

    @property
    def n_vocab(self) -> int:
        return self.integer("vocab_size", limit=2**24)

    @property
    def rope(self) -> dict[str, Any]:
        """Rope values under one roof: transformers 5 nests them, 4 keeps rope_theta and rope_scaling on top."""
        values = {
            key: self.values[key] for key in ("rope_theta", "partial_rotary_factor") if key in self.values
        }
        for nested in (self.values.get("rope_scaling"), self.values.get("rope_parameters")):
            values.update(nested or {})
        values.setdefault("rope_type", values.get("type", "default"))
        return values


@dataclass(frozen=True, slots=True)
class Architecture:
    """One model family.

    name: GGUF's. checkpoint_names: `architectures` of config.json. check: raises UnsupportedModel, returns warnings.
    tensors: all that the loader needs except the output head, which `convert.model` adds where it differs from
    the embedding. rename: the checkpoint's tensor name in the family's plain form. dropped: why a tensor is not
    converted, or None if it is.
    """

    name: str
    checkpoint_names: tuple[str, ...]
    check: Callable[[ModelConfig], list[str]]
    fields: Callable[[ModelConfig], list[Field]]
    tensors: Callable[[ModelConfig], list[TensorPlan]]
    rename: Callable[[str], str] = lambda name: name
    dropped: Callable[[str], str | None] = lambda name: (
        "computed at run time" if name.endswith("rotary_emb.inv_freq") else None
    )


def decoder_fields(arch: str, config: ModelConfig) -> list[Field]:
    """The keys that every decoder has: sizes, heads, norm epsilon, rope base."""
    theta = config.rope.get("rope_theta", 10000.0)
    return [
        Field(f"{arch}.block_count", "u32", config.n_layers),
        Field(f"{arch}.context_length", "u32", config.integer("max_position_embeddings", limit=2**31 - 1)),
        Field(f"{arch}.embedding_length", "u32", config.n_embd),
        Field(f"{arch}.feed_forward_length", "u32", config.n_ff),
        Field(f"{arch}.attention.head_count", "u32", config.n_head),
        Field(f"{arch}.attention.head_count_kv", "u32", config.n_head_kv),
        # Without these two the loader divides hidden size by heads, which is wrong for Qwen3 and Qwen3.5.
        Field(f"{arch}.attention.key_length", "u32", config.head_dim),
        Field(f"{arch}.attention.value_length", "u32", config.head_dim),
        Field(f"{arch}.attention.layer_norm_rms_epsilon", "f32", config.number("rms_norm_eps", 1e-6)),
        Field(f"{arch}.rope.freq_base", "f32", float(theta)),
    ]


def feed_forward(layer: int, config: ModelConfig) -> list[TensorPlan]:
    """The three matrices of a gated feed-forward block."""
    source, block = f"model.layers.{layer}.mlp", f"blk.{layer}"
    return [
        copied(f"{block}.ffn_gate.weight", f"{source}.gate_proj.weight", config.n_ff, config.n_embd),
        copied(f"{block}.ffn_up.weight", f"{source}.up_proj.weight", config.n_ff, config.n_embd),
        copied(f"{block}.ffn_down.weight", f"{source}.down_proj.weight", config.n_embd, config.n_ff),
    ]


def embedding(config: ModelConfig) -> TensorPlan:
    return copied("token_embd.weight", "model.embed_tokens.weight", config.n_vocab, config.n_embd)


def check_decoder(config: ModelConfig, *, rope_types: tuple[str, ...] = ("default",)) -> list[str]:
    """What no family here can express; the message names the value found and what is allowed."""
    activation = config.values.get("hidden_act", "silu")
    if activation != "silu":
        raise UnsupportedModel(f"hidden_act is {activation!r}; only 'silu' is supported")
    rope_type = config.rope["rope_type"]
    if rope_type not in rope_types:
        raise UnsupportedModel(f"rope_type is {rope_type!r}; supported here: {', '.join(rope_types)}")
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if config.values.get(key):
            raise UnsupportedModel(f"{key} is true, which llama.cpp does not read for this architecture")
    if config.n_head == 0 or config.n_head_kv == 0 or config.n_head % config.n_head_kv:
        raise UnsupportedModel(f"{config.n_head} heads do not divide into {config.n_head_kv} key/value heads")
    return []
