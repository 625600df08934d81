"""What a model would have said next at every place of a given text: logits, teacher-forced, a few rows at a time.

For measuring models, not for answering. Two scorers on the same tokens can be read in step; neither keeps more
than one chunk of logits, whatever the text's length. Does not sample and knows nothing of messages.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.engine.context import KV_TYPES, ContextOptions, resolve
from edge.engine.model import Model, ModelOptions
from edge.engine.native import compute, llama, problems_logged
from edge.errors import ContextError, ContextOverflow, EngineError

Logits = npt.NDArray[np.float32]  # (rows, n_vocab)

# llama.cpp keeps a buffer of logits this large; 32 rows with the largest vocabularies.
_LOGITS_BYTES = 32 << 20
_MAX_ROWS = 128


class Scorer:
    """A model with a context that gives logits at every position. Not for several threads at once."""

    def __init__(
        self,
        path: str | Path,
        *,
        context: ContextOptions | None = None,
        model: ModelOptions | None = None,
        rows_at_once: int | None = None,
        trusted: bool = False,
    ) -> None:
        """rows_at_once: positions whose logits are computed together; at most what 32 MiB hold by default."""
        self.model = Model(path, model, trusted=trusted)
        try:
            self.n_vocab = self.model.vocab.n_tokens
            fitting = max(1, min(_MAX_ROWS, _LOGITS_BYTES // (4 * self.n_vocab)))
            self._plan = resolve(context or ContextOptions(), self.model.header)
            self.rows_at_once = min(rows_at_once or fitting, self._plan.n_batch)
            self._create()
        except BaseException:
            self.model.close()
            raise

    @property
    def n_ctx(self) -> int:
        """Tokens of a text at most."""
        return self._plan.n_ctx

    def _create(self) -> None:
        lib, plan = llama(), self._plan
        params = lib.llama_context_default_params()
        params.n_ctx = plan.n_ctx
        params.n_batch = params.n_ubatch = plan.n_batch
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = plan.n_threads
        params.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if plan.flash_attn else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.type_k = params.type_v = KV_TYPES[plan.kv_type][0]
        params.n_outputs_max = self.rows_at_once
        params.no_perf = True
        with problems_logged() as problems:
            self._pointer = lib.llama_init_from_model(self.model.pointer, params)
            if not self._pointer:
                raise ContextError(f"no context with n_ctx={plan.n_ctx} can be made: {problems()}")
        self._memory = lib.llama_get_memory(self._pointer)
        self._batch = lib.llama_batch_init(plan.n_batch, 0, 1)
        for i in range(plan.n_batch):
            self._batch.n_seq_id[i] = 1
            self._batch.seq_id[i][0] = 0

    def logits(self, tokens: Sequence[int], first: int = 0) -> Iterator[Logits]:
        """The logits after each of `tokens[first:]`, in chunks of rows, in order.

        A chunk is llama.cpp's own memory: it must not be used after the next one is asked for.
        Raises ContextOverflow, and EngineError when llama.cpp refuses.
        """
        if len(tokens) > self._plan.n_ctx:
            raise ContextOverflow(len(tokens), self._plan.n_ctx)
        llama().llama_memory_seq_rm(self._memory, 0, -1, -1)
        for start in range(0, first, self._plan.n_batch):
            self._decode(tokens[start : min(start + self._plan.n_batch, first)], start, wants_logits=False)
        for start in range(first, len(tokens), self.rows_at_once):
            chunk = tokens[start : start + self.rows_at_once]
            self._decode(chunk, start, wants_logits=True)
            address = llama().llama_get_logits(self._pointer)
            rows = np.ctypeslib.as_array(
                ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (len(chunk), self.n_vocab)
            )
            yield rows

    def _decode(self, chunk: Sequence[int], n_past: int, *, wants_logits: bool) -> None:
        batch = self._batch
        for i, token in enumerate(chunk):
            batch.token[i], batch.pos[i], batch.logits[i] = token, n_past + i, wants_logits
        batch.n_tokens = len(chunk)
        status = compute(lambda: llama().llama_decode(self._pointer, batch))
        if status != 0:
            raise EngineError(
                f"llama_decode gave status {status} for {len(chunk)} tokens at position {n_past}"
            )

    def close(self) -> None:
        """Frees everything native. Safe to call twice."""
        if self._pointer is not None:
            llama().llama_batch_free(self._batch)
            llama().llama_free(self._pointer)
            self._pointer = None
            self.model.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
