"""The index over a catalogue: built once, kept in one SQLite file, brought up to date tool by tool, searched.

The file holds the tools, their terms, the BM25 matrix, and, with an embedding model, a vector for each tool. It is
a cache: one that is damaged or of another version is built anew. Nothing here knows of models or conversations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from edge.errors import RetrievalError
from edge.tools.retrieval import lexical, text
from edge.tools.retrieval.catalogue import CatalogueTool, parse_catalogue, read_bytes
from edge.tools.retrieval.dense import DenseIndex, TextEmbedder
from edge.tools.retrieval.document import FieldWeights, document_terms
from edge.tools.retrieval.lexical import K1, B, LexicalIndex, Scores
from edge.tools.retrieval.storage import Storage, StoredTool

MAX_K = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How scores come together. How they were chosen is in docs/retrieval.md.

    sentence_weight: of the best sentence against the whole query; a query often asks for several things.
    context_weight: of what was said before the query.
    dense_weight: of the embedding model's similarity, where there is one.
    correct_typos: a word that no tool holds, and that is no name, is read as one that differs in a letter.
    """

    sentence_weight: float = 0.5
    context_weight: float = 0.3
    dense_weight: float = 0.5
    correct_typos: bool = True


@dataclass(frozen=True, slots=True)
class Hit:
    """A tool that was found. score: 1 is the best that this query could find."""

    entry: CatalogueTool
    score: float


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What bringing an index up to date did."""

    n_tools: int
    n_indexed: int  # new or changed, and so read again
    n_removed: int


class ToolIndex:
    """Searches one catalogue. Close it, or use it in a `with` block. Not for several threads at once."""

    def __init__(
        self, storage: Storage, *, embedder: TextEmbedder | None = None, weights: FieldWeights | None = None
    ) -> None:
        self._storage, self._weights = storage, weights or FieldWeights()
        self._embedder = embedder
        self._lexical: LexicalIndex | None = None
        self._dense: DenseIndex | None = None
        self._ids: list[str] = []

    @classmethod
    def in_memory(
        cls,
        entries: Sequence[CatalogueTool],
        *,
        embedder: TextEmbedder | None = None,
        weights: FieldWeights | None = None,
    ) -> ToolIndex:
        """An index that is gone with the process."""
        index = cls(Storage(None), embedder=embedder, weights=weights)
        index.update(entries)
        return index

    def update(self, entries: Sequence[CatalogueTool], *, source: str = "") -> IndexReport:
        """Makes the index that of these tools; only those that are new or changed are read and embedded.

        source: names the bytes that the tools came from, see `is_current`.
        """
        with self._storage.snapshot():
            vocabulary = self._storage.vocabulary()
            known = self._storage.known_terms()
        stored, documents, n_indexed = [], [], 0
        for entry in entries:
            digest = entry.digest()
            document = known.get(digest)
            if document is None:
                document = _numbered(document_terms(entry, self._weights), vocabulary)
                n_indexed += 1
            documents.append(document)
            stored.append(StoredTool(entry, digest, document))
        built = lexical.build(vocabulary, documents)
        if self._embedder is not None:
            self._dense = DenseIndex.of(
                entries, [tool.digest for tool in stored], self._embedder, self._storage
            )
        self._storage.replace(stored, built, source=source)
        self._lexical, self._ids = built, [entry.id for entry in entries]
        return IndexReport(len(entries), n_indexed, self._storage.n_removed)

    def is_current(self, source: str) -> bool:
        """Whether the index was made of these bytes, by this program's rules and with this embedding model."""
        with self._storage.snapshot():
            if self._storage.source() != source:
                return False
            self._storage.pin()
            self._ids = self._storage.ids()
            self._lexical = self._storage.lexical()
            if self._embedder is not None:
                self._dense = DenseIndex.stored(self._embedder, self._storage)
                return self._dense is not None
            return self._lexical is not None

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> list[str]:
        """The ids of all tools, in the catalogue's order."""
        return self._ids

    def entries(self, ids: Sequence[str]) -> list[CatalogueTool]:
        """The tools of these ids. Raises KeyError for one that there is not."""
        places = {identity: place for place, identity in enumerate(self.ids())}
        return self._storage.entries([places[identity] for identity in ids])

    def search(
        self, query: str, k: int = 5, *, context: str = "", options: SearchOptions | None = None
    ) -> list[Hit]:
        """The k tools that fit a query best, best first; fewer where fewer have anything in common with it.

        context: what was said before.
        """
        positions, scores = self._best(query, k, context, options)
        entries = self._storage.entries(positions)
        return [Hit(entry, score) for entry, score in zip(entries, scores, strict=True)]

    def search_ids(self, query: str, k: int = 5, *, options: SearchOptions | None = None) -> list[str]:
        """The ids of what `search` would find; quicker, for the tools are not read."""
        positions, _ = self._best(query, k, "", options)
        ids = self.ids()
        return [ids[position] for position in positions]

    def _best(
        self, query: str, k: int, context: str, options: SearchOptions | None
    ) -> tuple[list[int], list[float]]:
        if not 1 <= k <= MAX_K:
            raise RetrievalError(f"the number of tools to find is {k}; allowed is 1 to {MAX_K}")
        scores = self.scores(query, context=context, options=options or SearchOptions())
        best = np.argsort(-scores, kind="stable")[:k]
        positions = [int(position) for position in best if scores[position] > 0]
        return positions, [float(scores[position]) for position in positions]

    def scores(self, query: str, *, context: str = "", options: SearchOptions) -> Scores:
        """The score of every tool, 0 to about 1."""
        query, context = query[-text.MAX_QUERY_CHARS :], context[-text.MAX_QUERY_CHARS :]
        scores = self._lexical_scores(query, options)
        if context:
            scores = scores + np.float32(options.context_weight) * self._lexical_scores(context, options)
        if self._dense is not None:
            weight = np.float32(options.dense_weight)
            scores = (1 - weight) * scores + weight * self._dense.scores(query, options.sentence_weight)
        return scores

    def _lexical_scores(self, query: str, options: SearchOptions) -> Scores:
        assert self._lexical is not None, "update or is_current comes first"
        whole = _scaled(self._lexical.scores(self._terms(query, options)))
        parts = text.sentences(query)
        if len(parts) < 2 or not options.sentence_weight:
            return whole
        best = np.zeros_like(whole)
        for part in parts[: text.MAX_SENTENCES]:
            terms = self._terms(part, options)
            if len(terms) > 1:  # "Thanks!" is a sentence that asks for nothing
                np.maximum(best, _scaled(self._lexical.scores(terms)), out=best)
        weight = np.float32(options.sentence_weight)
        return (1 - weight) * whole + weight * best

    def _terms(self, query: str, options: SearchOptions) -> list[str]:
        assert self._lexical is not None
        found = text.terms(query)
        return self._lexical.corrected(found, text.names(query)) if options.correct_typos else found

    def close(self) -> None:
        """Closes the file. Safe to call twice."""
        self._storage.close()

    def __enter__(self) -> ToolIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_index(
    catalogue: Path, cache: Path | None, *, embedder: TextEmbedder | None = None
) -> tuple[ToolIndex, IndexReport]:
    """The index of a catalogue file, from the cache folder where that holds it; brought up to date and kept there.

    cache: None keeps nothing. Raises RetrievalError for a catalogue that cannot be read.
    """
    data = read_bytes(catalogue, "catalogue")
    weights = FieldWeights()
    settings = (text.ANALYSIS_VERSION, astuple(weights), K1, B)
    rules = hashlib.sha256(repr(settings).encode()).hexdigest()
    path = None
    if cache is not None:
        name = hashlib.sha256(str(catalogue.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        path = cache / f"{name}.sqlite"
    storage = Storage(path, rules=rules)
    index = ToolIndex(storage, embedder=embedder, weights=weights)
    source = hashlib.sha256(data).hexdigest()
    try:
        if index.is_current(source):
            return index, IndexReport(len(index), 0, 0)
        return index, index.update(parse_catalogue(data, str(catalogue)), source=source)
    except BaseException:
        index.close()
        raise


def _numbered(terms: Sequence[str], vocabulary: dict[str, int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """The ids of terms; new ones are entered into the vocabulary."""
    return np.fromiter((vocabulary.setdefault(term, len(vocabulary)) for term in terms), np.int32, len(terms))


def _scaled(scores: Scores) -> Scores:
    """Scores with the best at 1, so that they can be weighed against others."""
    best = scores.max(initial=0)
    return scores / best if best > 0 else scores
