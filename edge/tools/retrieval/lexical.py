"""BM25 over weighted terms, by the bm25s library; what is in a tool and how it is weighed is not decided here.

https://github.com/xhluca/bm25s: scores are worked out when the index is built, a query adds up columns.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
# k1 is high because a field's weight multiplies the counts that it saturates. Measured in docs/retrieval.md.
K1, B = 5.0, 0.75
_MIN_TYPO_CHARS = 6  # shorter words have too many neighbours


class LexicalIndex:
    """BM25 scores of documents, each a list of term ids."""

    def __init__(self, vocabulary: dict[str, int], arrays: dict[str, NDArray[Any]], n_documents: int) -> None:
        """arrays: `data`, `indices` and `indptr` of the matrix of scores, a column a term."""
        import bm25s

        self.vocabulary, self.arrays = vocabulary, arrays
        self._bm25 = bm25s.BM25(k1=K1, b=B)
        # What the library's own `load` sets; that one wants a folder of files.
        self._bm25.scores = {**arrays, "num_docs": n_documents}
        self._bm25.nonoccurrence_array = None
        self._n_documents = n_documents

    def scores(self, terms: Iterable[str]) -> Scores:
        """A score for each document; every term counts once. Higher is better, 0 is no term in common."""
        ids = [self.vocabulary[term] for term in dict.fromkeys(terms) if term in self.vocabulary]
        if not ids:
            return np.zeros(self._n_documents, dtype=np.float32)
        scores: Scores = self._bm25.get_scores(ids)
        return scores

    def corrected(self, terms: Iterable[str], names: Collection[str]) -> list[str]:
        """The terms, those that no document holds replaced by what they may be a slip of the keyboard for.

        names: not to be replaced; that no tool holds them is no wonder.
        """
        found: list[str] = []
        for term in terms:
            found += [term] if term in self.vocabulary or term in names else self._neighbours(term)
        return found

    def _neighbours(self, term: str) -> list[str]:
        if len(term) < _MIN_TYPO_CHARS or not (term.isascii() and term.isalpha()):
            return []
        known = {word for word in _one_edit_away(term) if word in self.vocabulary}
        return sorted(known, key=self._n_holding, reverse=True)[:1]

    def _n_holding(self, term: str) -> int:
        indptr = self.arrays["indptr"]
        column = self.vocabulary[term]
        return int(indptr[column + 1] - indptr[column])


def build(vocabulary: dict[str, int], documents: Sequence[NDArray[np.int32]]) -> LexicalIndex:
    """The index over documents of term ids, numbered as `vocabulary` has them."""
    import bm25s

    if not documents:
        nothing = {"data": np.zeros(0, np.float32), "indices": np.zeros(0, np.int32)}
        return LexicalIndex({}, nothing | {"indptr": np.zeros(1, np.int32)}, 0)
    bm25 = bm25s.BM25(k1=K1, b=B)
    # The library finds no average in documents that are all empty; an id of its own keeps it from dividing by 0.
    spare = len(vocabulary)
    filled = [document if len(document) else np.array([spare], dtype=np.int32) for document in documents]
    bm25.index((filled, {**vocabulary, "": spare}), show_progress=False)
    arrays = {name: bm25.scores[name] for name in ("data", "indices", "indptr")}
    return LexicalIndex(vocabulary, arrays, len(documents))


def _one_edit_away(word: str) -> Iterator[str]:
    """All texts that one letter left out, added, changed, or swapped with the next makes of a word."""
    for i in range(len(word) + 1):
        head, tail = word[:i], word[i:]
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        for letter in string.ascii_lowercase:
            yield head + letter + tail
            if tail:
                yield head + letter + tail[1:]
