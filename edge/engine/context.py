"""A llama.cpp context with one sequence: what it holds, what can be kept of it, how it is extended."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from edge.engine.gguf_header import GgufHeader
from edge.engine.model import Model
from edge.engine.native import llama, problems_logged
from edge.errors import ContextError, EngineError

# ggml type number and bytes per element; q8_0 is 32 int8 and one f16 scale.
KV_TYPES = {"f32": (0, 4.0), "f16": (1, 2.0), "q8_0": (8, 34 / 32)}
DEFAULT_N_CTX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextOptions:
    """How a context is made. None means: chosen from the model and the machine, see `resolve`."""

    n_ctx: int | None = None
    n_batch: int = 512
    n_ubatch: int | None = None  # tokens computed at once; None: n_batch. Drives the compute buffer
    n_threads: int | None = None
    flash_attn: bool = True
    kv_type: str = "f16"


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """The choices that were made, with the reason for each."""

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    flash_attn: bool
    kv_type: str
    kv_bytes: int
    reasons: dict[str, str]


def resolve(options: ContextOptions, header: GgufHeader) -> ContextPlan:
    """Fills in what was left open. Raises ContextError for a context that cannot be made."""
    if options.kv_type not in KV_TYPES:
        raise ContextError(f"kv_type is {options.kv_type!r}; allowed are {', '.join(KV_TYPES)}")
    if not 1 <= options.n_batch <= 8192:
        raise ContextError(f"n_batch is {options.n_batch}; allowed is 1 to 8192")
    n_ubatch = options.n_batch if options.n_ubatch is None else options.n_ubatch
    if not 1 <= n_ubatch <= options.n_batch:
        raise ContextError(f"n_ubatch is {n_ubatch}; allowed is 1 to n_batch, {options.n_batch}")
    n_ctx_train = header.number("context_length") or DEFAULT_N_CTX
    n_ctx, why_n_ctx = _resolve_n_ctx(options.n_ctx, n_ctx_train)
    n_threads, why_threads = _resolve_threads(options.n_threads)
    per_token = kv_bytes_per_token(header, KV_TYPES[options.kv_type][1])
    _check_memory(n_ctx, per_token)
    return ContextPlan(
        n_ctx=n_ctx,
        n_batch=min(options.n_batch, n_ctx),
        n_ubatch=min(n_ubatch, n_ctx),
        n_threads=n_threads,
        # A quantized V cache exists only under flash attention.
        flash_attn=options.flash_attn or options.kv_type == "q8_0",
        kv_type=options.kv_type,
        kv_bytes=int(n_ctx * per_token),
        reasons={"n_ctx": why_n_ctx, "n_threads": why_threads},
    )


def _resolve_n_ctx(asked: int | None, n_ctx_train: int) -> tuple[int, str]:
    if asked is None:
        n_ctx = min(DEFAULT_N_CTX, n_ctx_train)
        return n_ctx, f"default {DEFAULT_N_CTX}, the model was trained with {n_ctx_train}"
    if not 1 <= asked <= n_ctx_train:
        raise ContextError(f"n_ctx is {asked}; this model allows 1 to {n_ctx_train}")
    return asked, "as asked"


def _resolve_threads(asked: int | None) -> tuple[int, str]:
    if asked is not None:
        if not 1 <= asked <= 512:
            raise ContextError(f"n_threads is {asked}; allowed is 1 to 512")
        return asked, "as asked"
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    usable = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else physical
    # ggml's threads spin at barriers: one more than there are cores makes every step wait for the scheduler.
    return min(physical, usable), f"{physical} physical cores, {usable} usable by this process"


def kv_bytes_per_token(header: GgufHeader, element_bytes: float) -> float:
    """Bytes of K and V cache per token, over the layers that have attention."""
    n_layer = header.number("block_count") or 0
    if header.architecture == "qwen35":
        recurrent = header.metadata.get("qwen35.attention.recurrent_layers")
        interval = header.number("full_attention_interval") or 4
        n_layer = recurrent.count(False) if isinstance(recurrent, list) else n_layer // interval
    n_head = header.number("attention.head_count") or 1
    n_head_kv = header.number("attention.head_count_kv") or n_head
    head_dim = (header.number("embedding_length") or 0) // n_head
    k_dim = header.number("attention.key_length") or head_dim
    v_dim = header.number("attention.value_length") or head_dim
    return n_layer * n_head_kv * (k_dim + v_dim) * element_bytes


def _check_memory(n_ctx: int, bytes_per_token: float) -> None:
    # Linux hands out more than it has and kills the process at first use, so ask before llama.cpp allocates.
    available = psutil.virtual_memory().available
    if n_ctx * bytes_per_token > available:
        need, have = n_ctx * bytes_per_token / 2**20, available / 2**20
        fits = int(available / bytes_per_token)
        raise ContextError(
            f"n_ctx={n_ctx} needs {need:,.0f} MiB of KV cache, {have:,.0f} MiB are free; at most n_ctx={fits} fits"
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place in the sequence that can be gone back to. state: of the recurrent layers, where there are any."""

    n_tokens: int
    state: ctypes.Array[ctypes.c_uint8] | None


class Context:
    """Owns a `llama_context` with one sequence and knows which tokens are in it."""

    def __init__(self, model: Model, options: ContextOptions | None = None) -> None:
        self.plan = resolve(options or ContextOptions(), model.header)
        self.model = model
        self.tokens: list[int] = []  # what the sequence holds, in order
        lib = llama()
        self.pointer = _create(model, self.plan)
        self._memory = lib.llama_get_memory(self.pointer)
        self._batch = lib.llama_batch_init(self.plan.n_batch, 0, 1)
        for i in range(self.plan.n_batch):
            self._batch.n_seq_id[i] = 1
            self._batch.seq_id[i][0] = 0
            self._batch.logits[i] = 0

    def keep_prefix(self, prompt: Sequence[int]) -> int:
        """Drops everything after the longest common prefix with `prompt`; returns that prefix's length.

        At least one token of the prompt is always left to decode, for its logits. A hybrid model cannot drop
        a tail: there the whole sequence goes unless the prompt extends it.
        """
        n = 0
        for held, wanted in zip(self.tokens, prompt[:-1], strict=False):
            if held != wanted:
                break
            n += 1
        # An interrupt can come between a decode and our note of it, so ask what is really there.
        n_there = int(llama().llama_memory_seq_pos_max(self._memory, 0)) + 1
        if n < max(n_there, len(self.tokens)) and not self._remove_from(n):
            self.clear()
            n = 0
        return n

    def _remove_from(self, position: int) -> bool:
        if not llama().llama_memory_seq_rm(self._memory, 0, position, -1):
            return False
        del self.tokens[position:]
        return True

    def checkpoint(self) -> Checkpoint:
        """The present end of the sequence. Costs a copy of the recurrent state: 50 MiB on a 4B hybrid."""
        if not self.model.is_hybrid:
            return Checkpoint(len(self.tokens), None)
        lib = llama()
        flags = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        n_bytes = lib.llama_state_seq_get_size_ext(self.pointer, 0, flags)
        state = (ctypes.c_uint8 * n_bytes)()
        if lib.llama_state_seq_get_data_ext(self.pointer, state, n_bytes, 0, flags) != n_bytes:
            raise EngineError("the recurrent state could not be copied")
        return Checkpoint(len(self.tokens), state)

    def rewind(self, checkpoint: Checkpoint, tokens: Sequence[int]) -> None:
        """Makes `tokens` the sequence, with the logits of the last one. They go on from the checkpoint."""
        lib, keep = llama(), checkpoint.n_tokens
        if checkpoint.state is None:
            keep = len(tokens) - 1  # attention can go back to anywhere
        else:
            flags = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
            lib.llama_state_seq_set_data_ext(self.pointer, checkpoint.state, len(checkpoint.state), 0, flags)
        if not self._remove_from(keep):
            self.clear()
            keep = 0
        self.decode(tokens[keep:])

    def clear(self) -> None:
        """Empties the sequence."""
        llama().llama_memory_seq_rm(self._memory, 0, -1, -1)
        self.tokens.clear()

    def decode(self, tokens: Sequence[int]) -> None:
        """Appends tokens to the sequence, n_batch at a time; the logits of the last one can be read after.

        Raises EngineError when llama.cpp refuses, ContextError when n_ctx would be exceeded; the sequence then
        holds what `self.tokens` says, or nothing.
        """
        if len(self.tokens) + len(tokens) > self.plan.n_ctx:
            raise ContextError(f"{len(self.tokens) + len(tokens)} tokens do not fit n_ctx={self.plan.n_ctx}")
        for start in range(0, len(tokens), self.plan.n_batch):
            chunk = tokens[start : start + self.plan.n_batch]
            self._decode_chunk(chunk, wants_logits=start + len(chunk) == len(tokens))

    def _decode_chunk(self, chunk: Sequence[int], *, wants_logits: bool) -> None:
        batch, n_past, last = self._batch, len(self.tokens), len(chunk) - 1
        for i, token in enumerate(chunk):
            batch.token[i] = token
            batch.pos[i] = n_past + i
        batch.n_tokens = len(chunk)
        batch.logits[last] = wants_logits
        try:
            status = llama().llama_decode(self.pointer, batch)
        finally:
            batch.logits[last] = 0
        if status != 0:
            self.clear()
            raise EngineError(
                f"llama_decode gave status {status} for {len(chunk)} tokens at position {n_past}"
            )
        self.tokens.extend(chunk)

    def close(self) -> None:
        """Frees the context. Safe to call twice."""
        if self.pointer is not None:
            llama().llama_batch_free(self._batch)
            llama().llama_free(self.pointer)
            self.pointer = None


def _create(model: Model, plan: ContextPlan) -> Any:  # noqa: ANN401 - ctypes pointer
    lib = llama()
    params = lib.llama_context_default_params()
    params.n_ctx = plan.n_ctx
    params.n_batch, params.n_ubatch = plan.n_batch, plan.n_ubatch
    params.n_seq_max = 1
    params.n_threads = params.n_threads_batch = plan.n_threads
    params.flash_attn_type = (
        lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if plan.flash_attn else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.type_k = params.type_v = KV_TYPES[plan.kv_type][0]
    # Logits are read at one position a step: with 248,320 tokens this saves 328 MiB of compute buffer.
    params.n_outputs_max = 1
    params.no_perf = True
    with problems_logged() as problems:
        pointer = lib.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise ContextError(f"no context with n_ctx={plan.n_ctx} can be made: {problems()}")
    return pointer
