"""The memory model: how many bytes a model takes when it runs, term by term, worked out and not measured.

Every term is a function with the source of its formula; llama.cpp means commit 0c1e57098 (llama-cpp-python 0.3.36).
`benchmarks/memory_model.py` compares the sum with measured peaks, `edge.engine.dry_load` single terms with what
llama.cpp reserves. Partial offload to a GPU is arithmetic that nothing here has measured.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

from profiles.errors import PinError
from profiles.shape import ModelShape, WeightGroup, Weights

MIB = 1 << 20
F32_BYTES = 4

# Bytes of one element of the KV cache; q8_0 is 32 int8 and one f16 scale.
KV_ELEMENT_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}

# Measured, see docs/profiles.md: Python, its packages, llama.cpp's libraries and the heap of an answer ...
RUNTIME_BYTES = 88 * MIB
# ... and llama.cpp's vocabulary and ours: strings, maps, the tree of token prefixes that a grammar walks.
VOCAB_BYTES_PER_TOKEN = 280
# A CUDA context with cuBLAS's workspace. Not measured here.
GPU_CONTEXT_BYTES = 500 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a model is run, by llama.cpp's names.

    n_ctx: of each of n_parallel sequences, which share one pool of cells (kv_unified).
    state_cache_bytes: copies of recurrent states that are kept, at most; attention needs none.
    """

    n_ctx: int
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    n_ubatch: int = 512
    n_parallel: int = 1
    flash_attn: bool = True
    n_gpu_layers: int = 0
    use_mmap: bool = True
    use_extra_bufts: bool = True
    state_cache_bytes: int = 0

    def __post_init__(self) -> None:
        for kind in (self.kv_type_k, self.kv_type_v):
            if kind not in KV_ELEMENT_BYTES:
                raise PinError(f"the KV type is {kind!r}; allowed are {', '.join(KV_ELEMENT_BYTES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Resident bytes by term, in the machine's memory; accelerator_bytes lie in a GPU's own."""

    weights: int
    repacked: int
    kv_cache: int
    recurrent_state: int
    compute: int
    output: int
    state_cache: int
    runtime: int
    accelerator_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """What the machine's memory must hold at the peak."""
        return sum(self.terms().values())

    def terms(self) -> dict[str, int]:
        """The parts of `total_bytes` by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "accelerator_bytes"}


def footprint(
    shape: ModelShape,
    weights: Weights,
    options: RunOptions,
    *,
    cpu_features: Collection[str] = (),
    unified_memory: bool = False,
) -> Footprint:
    """All terms for one way to run a model.

    unified_memory: what is offloaded lies in the machine's memory all the same (Jetson, Apple).
    """
    share = offloaded_share(shape, options.n_gpu_layers)
    kv, state = kv_cache_bytes(shape, options), recurrent_state_bytes(shape, options)
    on_gpu = int(offloaded_weight_bytes(shape, weights, options) + share * (kv + state))
    compute = compute_bytes(shape, options)
    if options.n_gpu_layers:
        on_gpu += compute + GPU_CONTEXT_BYTES
    in_machine = on_gpu if unified_memory else 0
    return Footprint(
        weights=resident_weight_bytes(shape, weights, options, cpu_features)
        + (offloaded_weight_bytes(shape, weights, options) if unified_memory else 0),
        repacked=repacked_bytes(shape, weights, options, cpu_features),
        kv_cache=int(kv * (1 if unified_memory else 1 - share)),
        recurrent_state=int(state * (1 if unified_memory else 1 - share)),
        compute=compute,
        output=output_bytes(shape, options),
        state_cache=state_cache_bytes(shape, options),
        runtime=runtime_bytes(shape) + (GPU_CONTEXT_BYTES if options.n_gpu_layers and in_machine else 0),
        accelerator_bytes=0 if unified_memory else on_gpu,
    )


def offloaded_share(shape: ModelShape, n_gpu_layers: int) -> float:
    """The part of the layers that a GPU computes, 0 to 1. The KV cache and the state go with their layer."""
    return min(n_gpu_layers, shape.n_layer) / shape.n_layer


def _on_gpu(shape: ModelShape, group: WeightGroup, n_gpu_layers: int) -> float:
    # The embedding always stays: looking rows up is the CPU's. The output counts as one layer more than there are.
    if group.use == "layers":
        return offloaded_share(shape, n_gpu_layers)
    return 1.0 if group.use == "output" and n_gpu_layers > shape.n_layer else 0.0


def offloaded_weight_bytes(shape: ModelShape, weights: Weights, options: RunOptions) -> int:
    """Weights in a GPU's buffers. A tied embedding is there a second time, as the output (TENSOR_DUPLICATED)."""
    total = sum(group.n_bytes * _on_gpu(shape, group, options.n_gpu_layers) for group in weights.groups)
    if shape.tied and options.n_gpu_layers > shape.n_layer:
        total += sum(group.n_bytes for group in weights.groups if group.use == "embedding")
    return int(total)


def resident_weight_bytes(
    shape: ModelShape, weights: Weights, options: RunOptions, cpu_features: Collection[str]
) -> int:
    """Weights in the machine's memory in the file's own layout.

    A mapped file is read in whole when it is mapped (MAP_POPULATE in llama-mmap.cpp) and what lies outside the
    tensors is unmapped again; so all of it is resident, also tensors of which there is a repacked copy. Without
    a mapping those exist as the copy alone.
    """
    on_cpu = sum(
        group.n_bytes * (1 - _on_gpu(shape, group, options.n_gpu_layers)) for group in weights.groups
    )
    if not options.use_mmap:
        on_cpu -= repacked_bytes(shape, weights, options, cpu_features)
    return int(on_cpu)


# Types that the CPU backend copies into an interleaved layout, by the features it needs one set of.
# ggml_repack_get_optimal_repack_type in ggml/src/ggml-cpu/repack.cpp.
_REPACKED_WITH: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (frozenset({"avx2"}), frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})),
    (frozenset({"avx512f"}), frozenset({"Q2_K"})),
    (frozenset({"asimd", "asimddp"}), frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0"})),
)  # fmt: skip


def repacked_types(cpu_features: Collection[str]) -> frozenset[str]:
    """The ggml types of which this processor gets a second copy."""
    present = set(cpu_features)
    return frozenset().union(*(types for needed, types in _REPACKED_WITH if needed <= present))


def repacked_bytes(
    shape: ModelShape, weights: Weights, options: RunOptions, cpu_features: Collection[str]
) -> int:
    """Copies of weights in the CPU's fastest layout, the same size as the original; 0 without use_extra_bufts.

    A tied embedding is looked up in the file and multiplied as the copy.
    """
    if not options.use_extra_bufts:
        return 0
    types = repacked_types(cpu_features)
    on_cpu = 0.0
    for group in weights.groups:
        if group.ggml_type in types and group.multiplied and (group.use != "embedding" or shape.tied):
            use = "output" if group.use == "embedding" else group.use
            as_used = WeightGroup(use, group.ggml_type, group.n_bytes, True)
            on_cpu += group.n_bytes * (1 - _on_gpu(shape, as_used, options.n_gpu_layers))
    return int(on_cpu)


def kv_cells(options: RunOptions) -> int:
    """Tokens that the KV cache has room for, in steps of 256 (llama-context.cpp)."""
    return -(-options.n_ctx * options.n_parallel // 256) * 256


def n_slots(shape: ModelShape, options: RunOptions) -> int:
    """Sequences that the context is made for: without a recurrent state one more, which keeps what was computed.

    The spare slot takes no cells of its own (edge.engine.context).
    """
    return options.n_parallel + (0 if shape.recurrent else 1)


def kv_cache_bytes(shape: ModelShape, options: RunOptions) -> int:
    """K and V of all full-attention layers. Written with zeros when it is made, so all of it is resident."""
    k = shape.head_dim_k * KV_ELEMENT_BYTES[options.kv_type_k]
    v = shape.head_dim_v * KV_ELEMENT_BYTES[options.kv_type_v]
    return int(kv_cells(options) * shape.n_attention_layer * shape.n_head_kv * (k + v))


def recurrent_state_bytes(shape: ModelShape, options: RunOptions) -> int:
    """Convolution and delta-net state of the linear layers in F32, one for each sequence, whatever n_ctx is.

    n_embd_r() and n_embd_s() in llama-hparams.cpp. kv_type has no influence.
    """
    r = shape.recurrent
    if r is None:
        return 0
    conv = (r.conv_kernel - 1) * (r.inner_size + 2 * r.group_count * r.state_size)
    return n_slots(shape, options) * r.n_layer * (conv + r.state_size * r.inner_size) * F32_BYTES


def state_cache_bytes(shape: ModelShape, options: RunOptions) -> int:
    """Copies of recurrent states: those kept for later prompts, at least one, and one for each call being written.

    The newest is made before the oldest goes (edge.engine.slots). Attention layers go back without copies.
    """
    if shape.recurrent is None:
        return 0
    one = recurrent_state_bytes(shape, options) // n_slots(shape, options)
    return max(options.state_cache_bytes, one) + one * options.n_parallel


def compute_bytes(shape: ModelShape, options: RunOptions) -> int:
    """The buffer that the graph's intermediate tensors share, reserved for a full step of n_ubatch tokens.

    The attention mask lives through the whole graph; beside it the largest of the phases counts, since ggml reuses
    the memory of what is done. Factors fitted to dry loads over shapes of all three architectures; a test repeats
    the comparison.
    """
    n = min(options.n_ubatch, kv_cells(options))
    n_kv = kv_cells(options)
    mask = n * n_kv * (2 if options.flash_attn else 4)
    phases = (
        _feed_forward_floats(shape, n),
        _attention_floats(shape, n, 0 if options.flash_attn else n_kv) + _cast_floats(shape, options),
        _recurrent_floats(shape, n, n_slots(shape, options)),
        _output_floats(shape, n, min(n, n_slots(shape, options))),
    )
    return mask + max(phases) * F32_BYTES


def _feed_forward_floats(shape: ModelShape, n: int) -> int:
    # gate, up and their product; input, norm and residual; what attention has left allocated.
    left = 0 if shape.recurrent else shape.n_head * shape.head_dim_k
    return n * (3 * shape.n_ff + 3 * shape.n_embd + left)


def _attention_floats(shape: ModelShape, n: int, n_scores: int) -> int:
    q, kv = shape.n_head * shape.head_dim_k, shape.n_head_kv * (shape.head_dim_k + shape.head_dim_v)
    gated = 4 * q if shape.recurrent else 3 * q
    return n * (3 * shape.n_embd + gated + kv + shape.n_head * n_scores)


def _cast_floats(shape: ModelShape, options: RunOptions) -> int:
    # Flash attention reads f16: one layer's f32 cache is copied before it (build_attn_mha in llama-graph.cpp).
    k = shape.head_dim_k if options.kv_type_k == "f32" else 0
    v = shape.head_dim_v if options.kv_type_v == "f32" else 0
    return kv_cells(options) * shape.n_head_kv * (k + v) // 2 if options.flash_attn else 0


def _recurrent_floats(shape: ModelShape, n: int, n_states: int) -> int:
    r = shape.recurrent
    if r is None:
        return 0
    channels = r.inner_size + 2 * r.group_count * r.state_size
    states = n_states * r.state_size * r.inner_size
    return n * (shape.n_embd + 2 * r.inner_size + 2 * channels) + states * 21 // 10


def _output_floats(shape: ModelShape, n: int, n_outputs: int) -> int:
    return n * 3 * shape.n_embd + n_outputs * shape.n_vocab


def output_bytes(shape: ModelShape, options: RunOptions) -> int:
    """Logits that the caller reads: one row for each sequence (output_reserve in llama-context.cpp)."""
    return n_slots(shape, options) * shape.n_vocab * F32_BYTES


def runtime_bytes(shape: ModelShape) -> int:
    """Python, libraries and vocabulary; threads' scratch buffers are in it."""
    return RUNTIME_BYTES + shape.n_vocab * VOCAB_BYTES_PER_TOKEN
