"""What is known of a model: the numbers that its memory depends on. Plain values, from wherever they come.

The caller fills them from a GGUF header or from catalogue data; nothing here reads a model file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from profiles.errors import UnknownShape

ARCHITECTURES = ("llama", "qwen3", "qwen35")

# ggml types: elements of a block, bytes of a block. ggml/src/ggml-common.h; a test compares with gguf's table.
TYPE_SIZES: dict[str, tuple[int, int]] = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22),
    "Q5_1": (32, 24), "Q8_0": (32, 34), "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144),
    "Q5_K": (256, 176), "Q6_K": (256, 210), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136), "IQ3_S": (256, 110),
    "IQ3_XXS": (256, 98), "IQ2_S": (256, 82), "IQ2_XS": (256, 74), "IQ2_XXS": (256, 66), "IQ1_S": (256, 50),
    "IQ1_M": (256, 56), "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17),
}  # fmt: skip


def bytes_of(ggml_type: str, n_elements: int) -> int:
    """Bytes of that many elements, in whole blocks."""
    block, size = TYPE_SIZES[ggml_type]
    return -(-n_elements // block) * size


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent:
    """The linear-attention part of a hybrid model, by GGUF's names (`ssm.*`)."""

    n_layer: int
    conv_kernel: int
    state_size: int
    group_count: int
    time_step_rank: int
    inner_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Numbers of a model that do not depend on how it is quantized.

    n_ctx_tuned: the longest context the fine-tuning saw; n_ctx_train is the base model's.
    tied: token embedding and output share one matrix.
    """

    name: str
    architecture: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int
    n_vocab: int
    n_ctx_train: int
    n_ctx_tuned: int | None = None
    tied: bool = True
    recurrent: Recurrent | None = None

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            allowed = ", ".join(ARCHITECTURES)
            raise UnknownShape(
                f"{self.name} has the architecture {self.architecture!r}; memory is known of {allowed}"
            )
        for name in (
            "n_layer",
            "n_embd",
            "n_ff",
            "n_head",
            "n_head_kv",
            "head_dim_k",
            "head_dim_v",
            "n_vocab",
        ):
            value = getattr(self, name)
            if not 0 < value < 1 << 31:
                raise UnknownShape(f"{self.name} has {name}={value}; a positive number is needed")

    @property
    def n_attention_layer(self) -> int:
        """Layers that have a KV cache."""
        return self.n_layer - (self.recurrent.n_layer if self.recurrent else 0)

    @property
    def n_ctx_max(self) -> int:
        """The longest context that makes sense for this model."""
        return min(self.n_ctx_train, self.n_ctx_tuned or self.n_ctx_train)


Use = Literal["embedding", "output", "layers"]


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """Tensors of one type and use together. multiplied: matrices that ggml may copy into another layout."""

    use: Use
    ggml_type: str
    n_bytes: int
    multiplied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One file of a model. measured: read from its header, and not worked out before it was downloaded."""

    quantization: str
    file_bytes: int
    groups: tuple[WeightGroup, ...]
    measured: bool
    installed: bool = False

    @property
    def tensor_bytes(self) -> int:
        """All tensors together."""
        return sum(group.n_bytes for group in self.groups)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that could be run: its reference for the user, its shape, and the files there are of it."""

    ref: str
    shape: ModelShape
    weights: tuple[Weights, ...]
