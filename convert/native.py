"""The only module that imports llama.cpp. It runs in a child process, because llama.cpp aborts on some bad files.

`python -m convert.native` reads one JSON request from standard input and writes JSON lines to standard output:
any number of {"progress": ...} and at last {"result": ...} or {"error": "..."}. See `convert.child`.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from convert.activations import ActivationSums

_TENSOR_LINE = re.compile(r"\[ *(\d+)/ *(\d+)\]")
_OVERRIDE_LIMIT = 127

Emit = Callable[[object], None]
Handle = ctypes.c_void_p  # llama_model *, llama_context *, llama_vocab *


class NativeError(Exception):
    """llama.cpp refused; becomes {"error": ...}."""


class _Log:
    """Joins the fragments of llama.cpp's log into lines; keeps the last ones that explain a failure."""

    def __init__(self, on_line: Callable[[str], None] = lambda line: None) -> None:
        self._rest, self.on_line = "", on_line
        self.lines: list[str] = []

    def __call__(self, level: int, text: bytes, user_data: int | None) -> None:
        *lines, self._rest = (self._rest + text.decode("utf-8", "replace")).split("\n")
        for line in lines:
            self.lines = [*self.lines[-39:], line]
            self.on_line(line)

    def reason(self) -> str:
        """The line that says most: a marked error, else a failure, else the last one; without its function's name."""
        errors = [line for line in self.lines if "error" in line]
        failures = [line for line in self.lines if "fail" in line]
        line = (errors or failures or self.lines or ["no reason given"])[-1]
        return re.sub(r"^\w+: ", "", line.strip())


@contextmanager
def _logging(on_line: Callable[[str], None] = lambda line: None) -> Iterator[_Log]:
    log = _Log(on_line)
    callback = llama_cpp.llama_log_callback(log)  # must outlive every call into the library
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    yield log


@contextmanager
def _model(path: str, log: _Log, *, with_weights: bool = True) -> Iterator[Handle]:
    params = llama_cpp.llama_model_default_params()
    if not with_weights:  # every tensor is looked up and its shape checked, but no memory is taken for it
        params.no_alloc, params.load_mode = True, llama_cpp.LLAMA_LOAD_MODE_NONE
    params.n_gpu_layers = 0
    params.use_extra_bufts = False  # no repacked copy of the weights: this run reads them once
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise NativeError(f"llama.cpp does not load {Path(path).name}: {log.reason()}")
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)


@contextmanager
def _context(
    model: Handle, n_ctx: int, *, n_threads: int, exact: bool = False, cb_eval: object = None
) -> Iterator[Handle]:
    """A context whose whole window is one batch, with logits of every position."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
    params.n_threads = params.n_threads_batch = n_threads
    params.no_perf = True
    if exact:  # F32 cache and plain attention, for comparison with a float32 reference
        params.type_k = params.type_v = 0
        params.flash_attn_type = 0
    if cb_eval is not None:
        params.cb_eval = cb_eval
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise NativeError(f"llama.cpp makes no context of {n_ctx} tokens")
    try:
        yield context
    finally:
        llama_cpp.llama_free(context)


def quantize(request: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Quantize `source` to `target`. Progress: {"done", "total"}, one a tensor."""

    def on_line(line: str) -> None:
        if match := _TENSOR_LINE.match(line):
            emit({"done": int(match[1]), "total": int(match[2])})

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = request["ftype"]
    params.nthread = request["n_threads"]
    params.max_buf_size = request["max_buf_bytes"]
    kept = _set_overrides(params, request["fields"]), _set_imatrix(params, request["imatrix"])
    with _logging(on_line) as log:
        code = llama_cpp.llama_model_quantize(
            request["source"].encode(), request["target"].encode(), ctypes.byref(params)
        )
        del kept
        if code != 0:
            raise NativeError(log.reason())
    return {}


def _set_overrides(params: ctypes.Structure, fields: Mapping[str, str]) -> object:
    """Metadata strings to add. The returned array must stay referenced during the call."""
    array = (llama_cpp.llama_model_kv_override * (len(fields) + 1))()
    for entry, (key, value) in zip(array, fields.items(), strict=False):
        entry.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
        entry.key = key.encode()[:_OVERRIDE_LIMIT]
        entry.value.val_str = value.encode()[:_OVERRIDE_LIMIT]
    params.kv_overrides = ctypes.cast(array, ctypes.POINTER(llama_cpp.llama_model_kv_override))
    return array


def _set_imatrix(params: ctypes.Structure, path: str | None) -> object:
    """Activation statistics from an .npz of float32 arrays by tensor name; references as above."""
    if path is None:
        return None
    with np.load(path) as stored:
        values = {name: np.ascontiguousarray(stored[name], np.float32) for name in stored.files}
    array = (llama_cpp.llama_model_imatrix_data * (len(values) + 1))()
    for entry, (name, data) in zip(array, values.items(), strict=False):
        entry.name = name.encode()
        entry.data = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = data.size
    params.imatrix = ctypes.cast(array, ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
    return array, values


def probe(request: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Token ids of `texts`, the ids that end generation, and the logits after `decode`.

    Without ids to decode the weights are looked up but not read. Result: {"token_ids": [[...], ...], "end_ids":
    [...], "finite": bool | None, "top": id | None}.
    """
    ids, texts = request["decode"], request["texts"]
    result: dict[str, Any] = {"token_ids": [], "end_ids": [], "finite": None, "top": None}
    with _logging() as log, _model(request["model"], log, with_weights=bool(ids)) as model:
        vocab = llama_cpp.llama_model_get_vocab(model)
        if texts:
            n_vocab = llama_cpp.llama_vocab_n_tokens(vocab)
            result["token_ids"] = [_tokenize(vocab, text) for text in texts]
            result["end_ids"] = [i for i in range(n_vocab) if llama_cpp.llama_vocab_is_eog(vocab, i)]
        if ids:
            with _context(model, 64, n_threads=1) as context:
                last = _decode(context, model, ids)[-1]
            result |= {"finite": bool(np.isfinite(last).all()), "top": int(last.argmax())}
    return result


def _tokenize(vocab: Handle, text: str) -> list[int]:
    raw = text.encode()
    ids = (llama_cpp.llama_token * (len(raw) + 16))()
    count = llama_cpp.llama_tokenize(vocab, raw, len(raw), ids, len(ids), True, True)
    if count < 0:
        raise NativeError(f"{text[:20]!r} becomes more tokens than bytes")
    return list(ids[:count])


def _decode(context: Handle, model: Handle, token_ids: Sequence[int]) -> NDArray[np.float32]:
    """Logits of every position, shape (len(token_ids), n_vocab); the memory is cleared first."""
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    batch = llama_cpp.llama_batch_init(len(token_ids), 0, 1)
    try:
        batch.n_tokens = len(token_ids)
        for i, token_id in enumerate(token_ids):
            batch.token[i], batch.pos[i], batch.logits[i] = token_id, i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if llama_cpp.llama_decode(context, batch) != 0:
            raise NativeError("llama.cpp does not decode with this file")
        pointer = llama_cpp.llama_get_logits(context)
        shape = (len(token_ids), n_vocab)
        return np.ctypeslib.as_array(pointer, shape=shape).copy()
    finally:
        llama_cpp.llama_batch_free(batch)


def logits(request: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Logits of all positions of each list of token ids, as .npy-like arrays in an .npz at `target`."""
    prompts: list[list[int]] = request["prompts"]
    longest = max(len(prompt) for prompt in prompts)
    with (
        _logging() as log,
        _model(request["model"], log) as model,
        _context(model, longest, n_threads=request["n_threads"], exact=request["exact"]) as context,
    ):
        arrays = {}
        for i, prompt in enumerate(prompts):
            arrays[str(i)] = _decode(context, model, prompt)
            emit({"done": i + 1, "total": len(prompts)})
    np.savez(request["target"], allow_pickle=False, **arrays)
    return {}


def collect(request: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Activation sums of texts, in pieces of `n_ctx` tokens, as an .npz at `target`.

    Arrays: NAME.in_sum2 (columns,) and NAME.counts (1,). Result: {"n_chunks", "n_tokens"}.
    """
    n_ctx: int = request["n_ctx"]
    sums = ActivationSums(_op_number(b"MUL_MAT"))
    callback = llama_cpp.ggml_backend_sched_eval_callback(sums)  # must outlive the context
    with _logging() as log, _model(request["model"], log) as model:
        vocab = llama_cpp.llama_model_get_vocab(model)
        chunks = _chunks([_tokenize(vocab, text) for text in request["texts"]], n_ctx)
        if not chunks:
            raise NativeError("the calibration text is empty")
        with _context(model, n_ctx, n_threads=request["n_threads"], cb_eval=callback) as context:
            for i, chunk in enumerate(chunks):
                _decode(context, model, chunk)
                emit({"done": i + 1, "total": len(chunks)})
    arrays = {f"{name}.in_sum2": values.astype(np.float32) for name, values in sums.sums.items()}
    arrays |= {f"{name}.counts": np.array([count], np.float32) for name, count in sums.counts.items()}
    np.savez(request["target"], allow_pickle=False, **arrays)
    return {"n_chunks": len(chunks), "n_tokens": sum(map(len, chunks))}


def _chunks(token_ids: Sequence[Sequence[int]], n_ctx: int) -> list[Sequence[int]]:
    """Each text in pieces; a text never shares a piece with another, because they are separate conversations."""
    return [ids[start : start + n_ctx] for ids in token_ids for start in range(0, len(ids), n_ctx)]


def _op_number(name: bytes) -> int:
    """ggml's number of an operation, which changes between versions."""
    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    library.ggml_op_name.restype = ctypes.c_char_p
    return next(number for number in range(256) if library.ggml_op_name(number) == name)


_TASKS: dict[str, Callable[[Mapping[str, Any], Emit], dict[str, Any]]] = {
    "quantize": quantize,
    "probe": probe,
    "logits": logits,
    "collect": collect,
}


def main() -> None:
    """Carry out the request on standard input."""
    out = _private_stdout()
    _end_with_parent()

    def emit(value: object, key: str = "progress") -> None:
        out.write(json.dumps({key: value}).encode() + b"\n")
        out.flush()

    request = json.loads(sys.stdin.read())
    try:
        emit(_TASKS[request["task"]](request, emit), "result")
    except NativeError as error:
        emit(str(error), "error")


def _private_stdout() -> BinaryIO:
    """The real standard output; whatever native code prints goes to standard error instead."""
    sys.stdout.flush()
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, so that no orphan keeps writing gigabytes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
