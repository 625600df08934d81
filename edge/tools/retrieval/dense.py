"""Similarity of meaning: a vector for each tool, made by an embedding model that is given from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.tools.retrieval import text
from edge.tools.retrieval.catalogue import CatalogueTool
from edge.tools.retrieval.document import embedding_text
from edge.tools.retrieval.storage import Storage

Vectors = NDArray[np.float32]
_CHUNK = 256  # tools embedded between two savings


class TextEmbedder(Protocol):
    """Texts to vectors of length 1. identity: names the model and its settings; it changes with the vectors."""

    identity: str

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """One row a text. query: the texts are questions, not documents; some models tell them apart."""
        ...


class DenseIndex:
    """Vectors of all tools, and the model that makes those of queries."""

    def __init__(self, vectors: Vectors, embedder: TextEmbedder) -> None:
        self._vectors, self._embedder = vectors, embedder

    @classmethod
    def of(
        cls,
        entries: Sequence[CatalogueTool],
        digests: Sequence[bytes],
        embedder: TextEmbedder,
        storage: Storage,
    ) -> DenseIndex:
        """The index of these tools; those that the storage has vectors of are not embedded again."""
        known = storage.vectors(embedder.identity)
        missing = [n for n, digest in enumerate(digests) if digest not in known]
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            vectors = embedder.embed([embedding_text(entries[n]) for n in chunk]).astype(np.float16)
            storage.add_vectors(embedder.identity, [digests[n] for n in chunk], vectors)
            known |= {digests[n]: vector for n, vector in zip(chunk, vectors, strict=True)}
        return cls(_matrix(known, digests), embedder)

    @classmethod
    def stored(cls, embedder: TextEmbedder, storage: Storage) -> DenseIndex | None:
        """The index that the storage holds of this model; None where a tool has no vector."""
        known, digests = storage.vectors(embedder.identity), storage.digests()
        if any(digest not in known for digest in digests):
            return None
        return cls(_matrix(known, digests), embedder)

    def scores(self, query: str, sentence_weight: float) -> Vectors:
        """A score for each tool: 1 for the nearest, 0 for one as far as the average and beyond."""
        parts = [part for part in text.sentences(query)[: text.MAX_SENTENCES] if len(text.terms(part)) > 1]
        texts = [query, *parts] if len(parts) > 1 and sentence_weight else [query]
        vectors: Vectors = self._embedder.embed(texts, query=True)
        similar = _standardized(vectors @ self._vectors.T)
        if len(texts) == 1:
            only: Vectors = similar[0]
            return only
        weight = np.float32(sentence_weight)
        mixed: Vectors = (1 - weight) * similar[0] + weight * similar[1:].max(axis=0)
        return mixed


def _matrix(known: dict[bytes, NDArray[np.float16]], digests: Sequence[bytes]) -> Vectors:
    matrix: Vectors = np.stack([known[digest] for digest in digests]).astype(np.float32)
    return matrix


def _standardized(similarities: Vectors) -> Vectors:
    """Each row from its mean (0) to its best (1): cosines of different models lie in different, narrow bands."""
    mean = similarities.mean(axis=1, keepdims=True)
    span = np.maximum(similarities.max(axis=1, keepdims=True) - mean, 1e-6)
    scaled: Vectors = np.maximum((similarities - mean) / span, 0)
    return scaled
