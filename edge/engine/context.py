"""A llama.cpp context: how it is made, and the step that all its sequences take together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from edge.engine.gguf_header import GgufHeader
from edge.engine.model import Model
from edge.engine.native import llama, problems_logged
from edge.engine.slot import Run, Slot
from edge.errors import ContextError, EngineError

# ggml type number and bytes per element; q8_0 is 32 int8 and one f16 scale.
KV_TYPES = {"f32": (0, 4.0), "f16": (1, 2.0), "q8_0": (8, 34 / 32)}
DEFAULT_N_CTX = 4096
MAX_PARALLEL = 64
# On a CPU a step's time grows with tokens times weights: 512 tokens of 1 GB, 64 at the least of anything larger.
_PIECE_BYTES, _MIN_PIECE, _MIN_PIECE_BESIDE = 512 * 2**30, 64, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextOptions:
    """How a context is made. None means: chosen from the model and the machine, see `resolve`."""

    n_ctx: int | None = None
    n_batch: int = 512
    n_ubatch: int | None = None  # tokens computed at once; None: n_batch. Drives the compute buffer
    n_threads: int | None = None
    flash_attn: bool = True
    kv_type: str = "f16"
    snapshot_bytes: int = 256 << 20  # of a hybrid model's states that are kept; one is always


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """The choices that were made, with the reason for each."""

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    flash_attn: bool
    kv_type: str
    n_parallel: int  # sequences that can hold n_ctx tokens each
    kv_bytes: int  # of all of them
    reasons: dict[str, str]


def resolve(options: ContextOptions, header: GgufHeader, n_parallel: int = 1) -> ContextPlan:
    """Fills in what was left open. Raises ContextError for a context that cannot be made."""
    if options.kv_type not in KV_TYPES:
        raise ContextError(f"kv_type is {options.kv_type!r}; allowed are {', '.join(KV_TYPES)}")
    if not 1 <= options.n_batch <= 8192:
        raise ContextError(f"n_batch is {options.n_batch}; allowed is 1 to 8192")
    n_ubatch = options.n_batch if options.n_ubatch is None else options.n_ubatch
    if not 1 <= n_ubatch <= options.n_batch:
        raise ContextError(f"n_ubatch is {n_ubatch}; allowed is 1 to n_batch, {options.n_batch}")
    if not 1 <= n_parallel <= MAX_PARALLEL:
        raise ContextError(f"n_parallel is {n_parallel}; allowed is 1 to {MAX_PARALLEL}")
    n_ctx_train = header.number("context_length") or DEFAULT_N_CTX
    n_ctx, why_n_ctx = _resolve_n_ctx(options.n_ctx, n_ctx_train)
    n_threads, why_threads = _resolve_threads(options.n_threads)
    per_token = kv_bytes_per_token(header, KV_TYPES[options.kv_type][1])
    _check_memory(n_ctx, per_token * n_parallel)
    return ContextPlan(
        n_ctx=n_ctx,
        n_batch=min(options.n_batch, n_ctx),
        n_ubatch=min(n_ubatch, n_ctx),
        n_threads=n_threads,
        # A quantized V cache exists only under flash attention.
        flash_attn=options.flash_attn or options.kv_type == "q8_0",
        kv_type=options.kv_type,
        n_parallel=n_parallel,
        kv_bytes=int(n_ctx * per_token * n_parallel),
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


class Context:
    """Owns a `llama_context` with `n_slots` sequences in one pool of cells.

    Each of `n_parallel` sequences can hold n_ctx tokens. Slots beyond these only keep what was computed, as long as
    there is room for it. Decoding, copying and emptying are for one thread at a time.
    """

    def __init__(
        self, model: Model, options: ContextOptions | None = None, *, n_parallel: int = 1, n_spare: int = 0
    ) -> None:
        self.plan = resolve(options or ContextOptions(), model.header, n_parallel)
        self.model = model
        lib = llama()
        self.pointer = _create(model, self.plan, n_parallel + n_spare)
        self.memory = lib.llama_get_memory(self.pointer)
        self.n_cells = self.plan.n_ctx * n_parallel
        self.slots = tuple(Slot(self, i) for i in range(n_parallel + n_spare))
        self._batch = lib.llama_batch_init(self.plan.n_batch, 0, 1)
        for i in range(self.plan.n_batch):
            self._batch.n_seq_id[i] = 1
            self._batch.logits[i] = 0

    def n_prompt_piece(self, *, beside_writing: bool) -> int:
        """Tokens of a prompt to decode in one step: short enough to give way to others, and to be given up.

        From the model's size and not from a clock, so that an answer does not depend on the machine's load.
        """
        n = self.plan.n_batch
        if not self.model.options.n_gpu_layers:
            while n > _MIN_PIECE and n * self.model.header.file_bytes > _PIECE_BYTES:
                n //= 2
        return max(min(_MIN_PIECE_BESIDE, n), n // 8) if beside_writing else n

    def decode(self, runs: Sequence[Run]) -> None:
        """One step: appends each run to its slot, together n_batch tokens at most; notes where the logits are.

        Raises EngineError when llama.cpp refuses; the slots of all runs are then empty.
        """
        batch, n = self._batch, 0
        outputs = []
        for run in runs:
            seq_id, position = run.slot.seq_id, len(run.slot.tokens)
            for token in run.tokens:
                batch.token[n], batch.pos[n], batch.seq_id[n][0] = token, position, seq_id
                n, position = n + 1, position + 1
            if run.wants_logits:
                outputs.append(n - 1)
                batch.logits[n - 1] = 1
                run.slot.i_output = n - 1
        batch.n_tokens = n
        status = llama().llama_decode(self.pointer, batch)
        for i in outputs:
            batch.logits[i] = 0
        if status != 0:
            for run in runs:
                run.slot.clear()
            raise EngineError(f"llama_decode gave status {status} for {n} tokens of {len(runs)} sequences")
        for run in runs:
            run.slot.tokens.extend(run.tokens)

    def close(self) -> None:
        """Frees the context. Safe to call twice."""
        if self.pointer is not None:
            llama().llama_batch_free(self._batch)
            llama().llama_free(self.pointer)
            self.pointer = None


def _create(model: Model, plan: ContextPlan, n_slots: int) -> Any:  # noqa: ANN401 - ctypes pointer
    lib = llama()
    params = lib.llama_context_default_params()
    params.n_ctx = plan.n_ctx * plan.n_parallel
    params.n_batch, params.n_ubatch = plan.n_batch, plan.n_ubatch
    params.n_seq_max = n_slots
    # One pool of cells: sequences share those of a common beginning, and a step is computed as a whole.
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = plan.n_threads
    params.flash_attn_type = (
        lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if plan.flash_attn else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.type_k = params.type_v = KV_TYPES[plan.kv_type][0]
    # Logits are read at one position of a sequence: with 248,320 tokens this saves 328 MiB of compute buffer.
    params.n_outputs_max = n_slots
    params.no_perf = True
    with problems_logged() as problems:
        pointer = lib.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise ContextError(f"no context with n_ctx={plan.n_ctx} can be made: {problems()}")
    return pointer
