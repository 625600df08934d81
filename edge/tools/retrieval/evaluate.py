"""Measures a catalogue's search against queries with known answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from edge.errors import RetrievalError
from edge.tools.retrieval.catalogue import json_rows, read_bytes
from edge.tools.retrieval.index import SearchOptions, ToolIndex
from edge.tools.retrieval.metrics import ndcg, recall, reciprocal_rank

NDCG_AT = (1, 3, 5)
RECALL_AT = (1, 3, 5, 10)
_DEPTH = 100  # reciprocal ranks look no further


@dataclass(frozen=True, slots=True)
class Query:
    """A query with the ids of all tools that answer it."""

    id: str
    text: str
    relevant: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """Means over all queries, and the times of single queries in milliseconds."""

    n_queries: int
    ndcg: dict[int, float]
    recall: dict[int, float]
    mrr: float
    p50_ms: float
    p95_ms: float
    rankings: tuple[tuple[str, ...], ...]  # the ids found for each query, best first


def read_queries(path: Path, known_ids: Sequence[str]) -> list[Query]:
    """The queries of a file of `{"query", "relevant": [id, ...]}`. Raises RetrievalError naming the line."""
    where = f"the queries {path}"
    known = set(known_ids)
    queries = [
        _query(value, place, known, n)
        for n, (place, value) in enumerate(json_rows(read_bytes(path, "queries"), where))
    ]
    if not queries:
        raise RetrievalError(
            f'{where} are empty; lines of {{"query": ..., "relevant": [id, ...]}} are needed'
        )
    return queries


def _query(value: object, place: str, known: set[str], number: int) -> Query:
    if not isinstance(value, Mapping):
        raise RetrievalError(f'{place} is no object; {{"query": ..., "relevant": [id, ...]}} is needed')
    text, relevant = value.get("query"), value.get("relevant")
    if not isinstance(text, str) or not text.strip():
        raise RetrievalError(f"{place}: query is missing or empty; a text is needed")
    if not isinstance(relevant, list) or not relevant or not all(isinstance(name, str) for name in relevant):
        raise RetrievalError(f"{place}: relevant is no list of tool ids; at least one is needed")
    if unknown := [name for name in relevant if name not in known]:
        raise RetrievalError(f"{place}: relevant names {unknown[0]!r}, which is not in the catalogue")
    return Query(str(value.get("id", number)), text, tuple(dict.fromkeys(relevant)))


def evaluate(
    index: ToolIndex, queries: Sequence[Query], *, options: SearchOptions | None = None
) -> RetrievalReport:
    """The measures of a search for each query."""
    rankings, milliseconds = [], []
    for query in queries:
        started = time.perf_counter()
        found = index.search_ids(query.text, _DEPTH, options=options)
        milliseconds.append(1000 * (time.perf_counter() - started))
        rankings.append(tuple(found))
    pairs = list(zip(rankings, (query.relevant for query in queries), strict=True))
    milliseconds.sort()
    return RetrievalReport(
        n_queries=len(queries),
        ndcg={k: fmean(ndcg(ranking, relevant, k) for ranking, relevant in pairs) for k in NDCG_AT},
        recall={k: fmean(recall(ranking, relevant, k) for ranking, relevant in pairs) for k in RECALL_AT},
        mrr=fmean(reciprocal_rank(ranking, relevant) for ranking, relevant in pairs),
        p50_ms=milliseconds[len(milliseconds) // 2],
        p95_ms=milliseconds[min(len(milliseconds) - 1, int(0.95 * len(milliseconds)))],
        rankings=tuple(rankings),
    )
