"""What llama.cpp itself would reserve for a context: loads the model without its weights and reads its log.

A second opinion on the memory plan. It takes a second and a few hundred MiB, since the vocabulary is real. Repacked
weights are not reported by llama.cpp (it prints 0), and nothing is decoded.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.engine.context import KV_TYPES
from edge.engine.intake import examine_chat
from edge.engine.native import llama, logger, problems_logged
from edge.errors import ContextError, ModelError

_MIB = 1 << 20
# The log's wording, llama.cpp 0c1e57098: llama-kv-cache.cpp, llama-memory-recurrent.cpp, llama-context.cpp.
_LINES = {
    "kv_cache": r"llama_kv_cache: size = +([\d.]+) MiB",
    "recurrent_state": r"llama_memory_recurrent: size = +([\d.]+) MiB",
    "compute": r"compute buffer size = +([\d.]+) MiB",
    "output": r"output buffer size = +([\d.]+) MiB",
}


@dataclass(frozen=True, slots=True)
class DryLoad:
    """Bytes by term, to the hundredth of a MiB that the log prints. weights: the sum over the tensors."""

    weights: int
    kv_cache: int
    recurrent_state: int
    compute: int
    output: int


def dry_load(
    path: Path,
    *,
    n_ctx: int,
    kv_type: str = "f16",
    n_ubatch: int = 512,
    n_parallel: int = 1,
    n_slots: int = 1,
    flash_attn: bool = True,
) -> DryLoad:
    """The reservations for n_parallel sequences of n_ctx tokens in one pool, and n_slots of them that are kept.

    Raises ModelError, ContextError.
    """
    examine_chat(path)
    lib = llama()
    model = _load_without_weights(lib, path)
    try:
        params = lib.llama_context_default_params()
        params.n_ctx = n_ctx * n_parallel
        params.n_batch = params.n_ubatch = n_ubatch
        params.n_seq_max = params.n_outputs_max = n_slots
        params.kv_unified = True
        params.type_k = params.type_v = KV_TYPES[kv_type][0]
        params.flash_attn_type = int(flash_attn)
        with _logged() as lines, problems_logged() as problems:
            context = lib.llama_init_from_model(model, params)
            if not context:
                raise ContextError(f"llama.cpp makes no context of n_ctx={n_ctx}: {problems()}")
            lib.llama_free(context)
        sizes = {name: _sum_bytes(pattern, lines) for name, pattern in _LINES.items()}
        return DryLoad(weights=int(lib.llama_model_size(model)), **sizes)
    finally:
        lib.llama_model_free(model)


def _load_without_weights(lib: Any, path: Path) -> Any:  # noqa: ANN401 - ctypes
    params = lib.llama_model_default_params()
    params.no_alloc = True
    params.load_mode = lib.LLAMA_LOAD_MODE_NONE
    params.use_extra_bufts = False
    with problems_logged() as problems:
        model = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise ModelError(f"{path} cannot be loaded: {problems()}; convert or download it again")
    return model


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _logged() -> Iterator[list[str]]:
    handler, level = _Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _sum_bytes(pattern: str, lines: list[str]) -> int:
    found = [float(match[1]) for line in lines if (match := re.search(pattern, line))]
    return int(sum(found) * _MIB)
