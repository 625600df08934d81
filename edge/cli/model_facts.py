"""A GGUF header or a catalogue row in the words of `profiles`: the numbers that a model's memory depends on.

Decides nothing; what a header lacks is taken as llama.cpp's loader takes it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from profiles.recipes import QUANTIZATIONS, estimate_weights
from profiles.shape import ModelShape, Recurrent, Use, WeightGroup, Weights, bytes_of

if TYPE_CHECKING:
    from edge.engine.gguf_header import GgufHeader, TensorInfo
    from edge.models.catalogue import ModelEntry

# enum ggml_type in ggml.h, and llama_ftype in llama.h; tests compare with the gguf package, which takes 0.3 s to load.
GGML_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip


def header_shape(header: GgufHeader, name: str) -> ModelShape:
    """The shape of a model file. Raises UnknownShape for an architecture or number that is not known."""
    n_head = header.number("attention.head_count") or 0
    n_embd = header.number("embedding_length") or 0
    head_dim = n_embd // n_head if n_head else 0
    return ModelShape(
        name=name,
        architecture=header.architecture,
        n_layer=header.number("block_count") or 0,
        n_embd=n_embd,
        n_ff=header.number("feed_forward_length") or 0,
        n_head=n_head,
        n_head_kv=header.number("attention.head_count_kv") or n_head,
        head_dim_k=header.number("attention.key_length") or head_dim,
        head_dim_v=header.number("attention.value_length") or head_dim,
        n_vocab=_n_vocab(header),
        n_ctx_train=header.number("context_length") or 0,
        tied="output.weight" not in header.tensors,
        recurrent=_recurrent(header),
    )


def _n_vocab(header: GgufHeader) -> int:
    embedding = header.tensors.get("token_embd.weight")
    return embedding.shape[-1] if embedding and embedding.shape else 0


def _recurrent(header: GgufHeader) -> Recurrent | None:
    if header.architecture != "qwen35":
        return None
    n_layer = header.number("block_count") or 0
    interval = header.number("full_attention_interval") or 4
    listed = header.metadata.get("qwen35.attention.recurrent_layers")
    return Recurrent(
        n_layer=listed.count(True) if isinstance(listed, list) else n_layer - n_layer // interval,
        conv_kernel=header.number("ssm.conv_kernel") or 1,
        state_size=header.number("ssm.state_size") or 0,
        group_count=header.number("ssm.group_count") or 0,
        time_step_rank=header.number("ssm.time_step_rank") or 0,
        inner_size=header.number("ssm.inner_size") or 0,
    )


def header_weights(header: GgufHeader) -> Weights:
    """The tensors of a model file by use and type."""
    sizes: Counter[tuple[Use, str, bool]] = Counter()
    for tensor in header.tensors.values():
        ggml_type = GGML_TYPES.get(tensor.ggml_type, "F32")
        n_rows = 1
        for n in tensor.shape[1:]:
            n_rows *= n
        columns = tensor.shape[0] if tensor.shape else 1
        key = _use(tensor), ggml_type, _is_multiplied(tensor)
        sizes[key] += n_rows * bytes_of(ggml_type, columns)
    file_type = header.metadata.get("general.file_type")
    return Weights(
        quantization=FILE_TYPES.get(file_type, "unknown") if isinstance(file_type, int) else "unknown",
        file_bytes=header.file_bytes,
        groups=tuple(WeightGroup(use, kind, n, mult) for (use, kind, mult), n in sizes.items()),
        measured=True,
        installed=True,
    )


def _use(tensor: TensorInfo) -> Use:
    uses: dict[str, Use] = {"token_embd.weight": "embedding", "output.weight": "output"}
    return uses.get(tensor.name, "layers")


def _is_multiplied(tensor: TensorInfo) -> bool:
    # ggml interleaves eight rows; a matrix whose rows do not divide is left as it is.
    return len(tensor.shape) == 2 and tensor.shape[1] % 8 == 0 and "conv1d" not in tensor.name


def entry_shape(entry: ModelEntry) -> ModelShape:
    """The shape that the catalogue gives a model."""
    s, r = entry.shape, entry.shape.recurrent
    recurrent = (
        None
        if r is None
        else Recurrent(
            n_layer=s.n_layer - s.n_layer // r.full_attention_interval,
            conv_kernel=r.conv_kernel,
            state_size=r.state_size,
            group_count=r.group_count,
            time_step_rank=r.time_step_rank,
            inner_size=r.inner_size,
        )
    )
    return ModelShape(
        name=entry.name,
        architecture=s.architecture,
        n_layer=s.n_layer,
        n_embd=s.n_embd,
        n_ff=s.n_ff,
        n_head=s.n_head,
        n_head_kv=s.n_head_kv,
        head_dim_k=s.head_dim,
        head_dim_v=s.head_dim,
        n_vocab=s.n_vocab,
        n_ctx_train=s.n_ctx_train,
        n_ctx_tuned=entry.n_ctx_tuned,
        tied=s.tied_embeddings,
        recurrent=recurrent,
    )


def entry_weights(entry: ModelEntry, quantization: str, *, installed: bool = False) -> Weights:
    """A file that is not here: by the quantizer's recipe, or the whole of the catalogue's size where none is known."""
    if quantization in QUANTIZATIONS:
        return estimate_weights(entry_shape(entry), quantization, installed=installed)
    n_bytes = entry.shape.file_bytes[quantization]
    return Weights(
        quantization=quantization,
        file_bytes=n_bytes,
        groups=(WeightGroup("layers", quantization, n_bytes, True),),
        measured=False,
        installed=installed,
    )
