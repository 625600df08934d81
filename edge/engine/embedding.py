"""Texts to vectors by a GGUF embedding model. One file, one small context; nothing of chat in it."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.engine.context import ContextOptions, resolve
from edge.engine.gguf_checks import check_whole
from edge.engine.gguf_header import GgufHeader, read_gguf_header
from edge.engine.model import ModelOptions, Vocabulary, load_weights
from edge.engine.native import compute, llama, problems_logged
from edge.engine.trial import check_in_child, run_trial
from edge.errors import ContextError, EngineError, ModelError

_POOLINGS = {1: "mean", 2: "cls", 3: "last"}  # llama.cpp's numbers; 4 ranks pairs and gives no vectors
_MAX_TEXT_TOKENS = 512
_MAX_TEXTS = 32  # of one step
_MAX_CHARS_A_TOKEN = 16  # what is surely cut off is not tokenized


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderOptions:
    """query_prefix, document_prefix: what the model wants before each text; many want nothing."""

    n_threads: int | None = None
    query_prefix: str = ""
    document_prefix: str = ""


class Embedder:
    """An embedding model. Close it, or use it in a `with` block. Not for several threads at once."""

    def __init__(
        self, path: str | Path, options: EmbedderOptions | None = None, *, trusted: bool = False
    ) -> None:
        """Raises ModelError for a file that is no embedding model, ContextError where memory lacks."""
        self.path, self.options = Path(path), options or EmbedderOptions()
        header = read_gguf_header(self.path)
        check_whole(header)
        pooling = _pooling(header)
        if not trusted:
            check_in_child(self.path, "edge.engine.embedding")
        self._context: Any = None
        self._model = load_weights(self.path, ModelOptions(use_extra_bufts=False))
        try:
            self._vocab = Vocabulary(llama().llama_model_get_vocab(self._model))
            self._n_tokens = min(_MAX_TEXT_TOKENS, int(llama().llama_model_n_ctx_train(self._model)))
            self._context = _create(self._model, header, self._n_tokens, self.options.n_threads)
            self._batch = llama().llama_batch_init(self._n_tokens, 0, 1)
        except BaseException:
            self.close()
            raise
        self.n_embd = int(llama().llama_model_n_embd_out(self._model))
        self.identity = _identity(header, pooling, self.options)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """A row of length 1 for each text; texts of more than 512 tokens are cut.

        query: the texts are questions, which some models mark by a prefix.
        """
        prefix = self.options.query_prefix if query else self.options.document_prefix
        vectors = np.zeros((len(texts), self.n_embd), dtype=np.float32)
        tokenized = [self._tokenize(prefix + text) for text in texts]
        for group in _groups([len(tokens) for tokens in tokenized], self._n_tokens):
            vectors[group] = self._step([tokenized[n] for n in group])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = vectors / np.maximum(norms, 1e-12)
        return unit

    def _tokenize(self, text: str) -> list[int]:
        tokens = self._vocab.tokenize_whole(text[: self._n_tokens * _MAX_CHARS_A_TOKEN])
        # The last token closes the text; the model was trained to find it there.
        return tokens if len(tokens) <= self._n_tokens else [*tokens[: self._n_tokens - 1], tokens[-1]]

    def _step(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        lib, batch = llama(), self._batch
        n = 0
        for sequence, tokens in enumerate(texts):
            for position, token in enumerate(tokens):
                batch.token[n], batch.pos[n] = token, position
                batch.n_seq_id[n], batch.seq_id[n][0] = 1, sequence
                batch.logits[n] = 1
                n += 1
        batch.n_tokens = n
        memory = lib.llama_get_memory(self._context)
        if memory:
            lib.llama_memory_clear(memory, False)
        run = lib.llama_decode if memory else lib.llama_encode
        status = compute(lambda: run(self._context, batch))
        if status != 0:
            raise EngineError(f"llama.cpp gave status {status} for {n} tokens of {self.path}")
        return np.stack([self._vector(sequence) for sequence in range(len(texts))])

    def _vector(self, sequence: int) -> NDArray[np.float32]:
        pointer = llama().llama_get_embeddings_seq(self._context, sequence)
        if not pointer:
            raise EngineError(f"llama.cpp gave no embedding for a text ({self.path})")
        return np.ctypeslib.as_array(
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self.n_embd,)
        ).copy()

    def close(self) -> None:
        """Frees everything native. Safe to call twice."""
        if self._context is not None:
            llama().llama_batch_free(self._batch)
            llama().llama_free(self._context)
            self._context = None
        if self._model is not None:
            llama().llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pooling(header: GgufHeader) -> str:
    number = header.number("pooling_type")
    if number not in _POOLINGS:
        found = "no pooling_type" if number is None else f"pooling_type {number}"
        allowed = ", ".join(f"{n} ({name})" for n, name in _POOLINGS.items())
        raise ModelError(f"{header.path} is not an embedding model: it has {found}, allowed are {allowed}")
    return _POOLINGS[number]


def _create(model: Any, header: GgufHeader, n_tokens: int, n_threads: int | None) -> Any:  # noqa: ANN401 - ctypes
    lib = llama()
    threads = resolve(ContextOptions(n_ctx=1, n_threads=n_threads), header).n_threads
    params = lib.llama_context_default_params()
    # A text is embedded in one step: llama.cpp aborts when an encoder gets more tokens than n_ubatch.
    params.n_ctx = params.n_batch = params.n_ubatch = n_tokens
    params.n_seq_max = _MAX_TEXTS
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = threads
    params.embeddings = True
    params.no_perf = True
    with problems_logged() as problems:
        context = lib.llama_init_from_model(model, params)
        if not context:
            raise ContextError(f"no context for {header.path} can be made: {problems()}")
    return context


def _groups(lengths: Sequence[int], n_tokens: int) -> Iterator[list[int]]:
    """Indices of texts that fit one step together."""
    group: list[int] = []
    n = 0
    for index, length in enumerate(lengths):
        if group and (n + length > n_tokens or len(group) == _MAX_TEXTS):
            yield group
            group, n = [], 0
        group.append(index)
        n += length
    if group:
        yield group


def _identity(header: GgufHeader, pooling: str, options: EmbedderOptions) -> str:
    """Names what decides about the vectors: the file by name, size and keys, and the prefixes."""
    keys = {key: value for key, value in header.metadata.items() if not isinstance(value, list)}
    what = (header.path.name, header.file_bytes, keys, pooling, options.query_prefix, options.document_prefix)
    return hashlib.sha256(repr(what).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _try(path: Path) -> None:
    with Embedder(path, EmbedderOptions(n_threads=1), trusted=True) as embedder:
        embedder.embed(["a", "word " * 2 * _MAX_TEXT_TOKENS])


if __name__ == "__main__":
    run_trial(_try)
