"""The search over catalogues: against rank_bm25, part by part, with an embedding model, and how long it takes.

    python -m benchmarks.retrieval quality DIR [--embed-model minilm-f16.gguf]
    python -m benchmarks.retrieval time [--tools 16000]

DIR holds pairs NAME_catalog.jsonl and NAME_queries.jsonl. The first rows need `pip install rank_bm25`; without it they
are left out. `time` makes its catalogue of the words of this repository's own sets, several times over.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import numpy as np

from edge.engine.embedding import Embedder, EmbedderOptions
from edge.tools.retrieval import lexical, text
from edge.tools.retrieval.catalogue import CatalogueTool, read_catalogue
from edge.tools.retrieval.document import FieldWeights, document_terms, field_texts
from edge.tools.retrieval.evaluate import Query, read_queries
from edge.tools.retrieval.index import SearchOptions, ToolIndex, open_index
from edge.tools.retrieval.metrics import ndcg, recall

OWN_SETS = Path(__file__).parents[1] / "tests" / "tools" / "retrieval" / "data"
Set = tuple[list[CatalogueTool], list[Query]]
Ranker = Callable[[str], Sequence[str]]
FLAT = FieldWeights(**{field.name: 1 for field in dataclasses.fields(FieldWeights)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    quality = commands.add_parser("quality")
    quality.add_argument("data", type=Path)
    quality.add_argument("--embed-model", type=Path)
    timing = commands.add_parser("time")
    timing.add_argument("--tools", type=int, default=16_000)
    timing.add_argument("--catalog", type=Path, help="take the words of this one instead")
    args = parser.parse_args()
    if args.command == "time":
        print_times(args.tools, args.catalog)
    else:
        print_quality(read_sets(args.data), args.embed_model)


def read_sets(folder: Path) -> dict[str, Set]:
    """The sets of a folder by name."""
    found: dict[str, Set] = {}
    for path in sorted(folder.glob("*_catalog.jsonl")):
        entries = read_catalogue(path)
        queries = path.with_name(path.name.replace("_catalog", "_queries"))
        name = path.name.removesuffix("_catalog.jsonl").removeprefix("retrieval_")
        found[name] = entries, read_queries(queries, [entry.id for entry in entries])
    return found


def print_quality(sets: dict[str, Set], embed_model: Path | None) -> None:
    """A row for each way to search: NDCG@5 and recall@5 on each set."""
    print("| |" + "|".join(f" {name} " for name in sets) + "| mean |\n|---|" + "---|" * (len(sets) + 1))
    for name, words in BASELINES.items():
        row(f"rank_bm25, {name}", sets, lambda entries, words=words: baseline(entries, words))
    no_parts = SearchOptions(sentence_weight=0, correct_typos=False)
    with patch.object(text, "_stop_words", frozenset), uncached():
        row("flat, stemmed, no stop words", sets, lambda e: searcher(e, no_parts, weights=FLAT))
    with patch.object(text, "_stemmer", NoStemmer), uncached():
        row("flat, stop words, not stemmed", sets, lambda e: searcher(e, no_parts, weights=FLAT))
    row("flat, stemmed, stop words", sets, lambda e: searcher(e, no_parts, weights=FLAT))
    row("+ weighted fields", sets, lambda e: searcher(e, no_parts))
    row("+ sentences", sets, lambda e: searcher(e, SearchOptions(correct_typos=False)))
    row("+ typos (BM25 as it is)", sets, lambda e: searcher(e, SearchOptions()))
    for n_terms, weight in ((5, 0.1), (10, 0.2)):
        row(
            f"weighted + feedback of {n_terms} terms at {weight}",
            sets,
            lambda e, n=n_terms, w=weight: feedback(e, n, w),
        )
    if embed_model is not None:
        with Embedder(embed_model, EmbedderOptions(n_threads=1)) as embedder:
            print_hybrid(sets, Remembering(embedder))


def print_hybrid(sets: dict[str, Set], embedder: Remembering) -> None:
    """Rows with an embedding model."""
    for weight in (1.0, 0.3, 0.4, 0.5, 0.6, 0.7):
        options = SearchOptions(dense_weight=weight)
        row(f"hybrid, dense {weight}", sets, lambda e, o=options: searcher(e, o, embedder=embedder))
    row("hybrid, reciprocal ranks (k 60)", sets, lambda e: reciprocal_ranks(e, embedder))


def row(name: str, sets: dict[str, Set], make: Callable[[list[CatalogueTool]], Ranker | None]) -> None:
    """Prints NDCG@5 / recall@5 on each set and the mean NDCG."""
    cells, gains = [], []
    for entries, queries in sets.values():
        ranker = make(entries)
        if ranker is None:
            return
        pairs = [(ranker(query.text), query.relevant) for query in queries]
        gains.append(fmean(ndcg(found, relevant, 5) for found, relevant in pairs))
        cells.append(
            f" {gains[-1]:.4f} / {fmean(recall(found, relevant, 5) for found, relevant in pairs):.4f} "
        )
    print(f"| {name} |" + "|".join(cells) + f"| {fmean(gains):.4f} |", flush=True)


def plain_words(value: str) -> list[str]:
    return re.findall(r"\w+", value.lower())


def split_words(value: str) -> list[str]:
    return plain_words(re.sub(r"[_\W]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", value)))


def all_fields(entry: CatalogueTool) -> str:
    return " ".join(field_texts(entry).values())


def name_and_description(entry: CatalogueTool) -> str:
    return f"{entry.tool.name} {entry.tool.description}"


BASELINES = {
    "name and description": (name_and_description, plain_words),
    "name and description, identifiers split": (name_and_description, split_words),
    "all fields": (all_fields, plain_words),
    "all fields, identifiers split": (all_fields, split_words),
}


def baseline(
    entries: list[CatalogueTool], words: tuple[Callable[[CatalogueTool], str], Callable[[str], list[str]]]
) -> Ranker | None:
    """rank_bm25's BM25Okapi with its defaults; None where it is not installed."""
    try:
        from rank_bm25 import BM25Okapi
    except ImportError:
        return None
    join, split = words
    bm25 = BM25Okapi([split(join(entry)) for entry in entries])
    ids = [entry.id for entry in entries]
    return lambda query: [ids[n] for n in np.argsort(-bm25.get_scores(split(query)), kind="stable")[:10]]


def searcher(
    entries: list[CatalogueTool],
    options: SearchOptions,
    *,
    weights: FieldWeights | None = None,
    embedder: Remembering | None = None,
) -> Ranker:
    index = ToolIndex.in_memory(entries, weights=weights, embedder=embedder)
    return lambda query: index.search_ids(query, 10, options=options)


def feedback(entries: list[CatalogueTool], n_terms: int, weight: float) -> Ranker:
    """Query expansion: the most frequent other terms of the first three tools are searched too, with less weight."""
    vocabulary: dict[str, int] = {}
    documents = [document_terms(entry, FieldWeights()) for entry in entries]
    ids = [entry.id for entry in entries]
    index = lexical.build(
        vocabulary,
        [np.array([vocabulary.setdefault(t, len(vocabulary)) for t in d], np.int32) for d in documents],
    )

    def rank(query: str) -> list[str]:
        asked = text.terms(query)
        scores = index.scores(asked)
        top = [n for n in np.argsort(-scores, kind="stable")[:3] if scores[n] > 0]
        counts = Counter(term for n in top for term in documents[n] if term not in asked)
        more = [term for term, _ in counts.most_common(n_terms)]
        scores = scores + np.float32(weight) * index.scores(more)
        return [ids[n] for n in np.argsort(-scores, kind="stable")[:10]]

    return rank


def reciprocal_ranks(entries: list[CatalogueTool], embedder: Remembering) -> Ranker:
    """The two rankings fused by the sum of 1 / (60 + place)."""
    words = ToolIndex.in_memory(entries)
    meaning = ToolIndex.in_memory(entries, embedder=embedder)

    def rank(query: str) -> list[str]:
        sums: Counter[str] = Counter()
        for found in (
            words.search_ids(query, 50),
            meaning.search_ids(query, 50, options=SearchOptions(dense_weight=1)),
        ):
            for place, identity in enumerate(found, 1):
                sums[identity] += 1 / (60 + place)  # type: ignore[assignment]
        return [identity for identity, _ in sums.most_common(10)]

    return rank


class Remembering:
    """An embedder that embeds each text once over all rows."""

    def __init__(self, embedder: Embedder) -> None:
        self.identity = embedder.identity
        self._embedder = embedder
        self._known: dict[tuple[str, bool], np.ndarray] = {}

    def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray:
        new = list(dict.fromkeys(t for t in texts if (t, query) not in self._known))
        self._known |= {
            (t, query): v for t, v in zip(new, self._embedder.embed(new, query=query), strict=True)
        }
        return np.stack([self._known[t, query] for t in texts])


class NoStemmer:
    """Leaves words as they are."""

    def stemWord(self, word: str) -> str:  # noqa: N802 - the library's name
        return word


class uncached:  # noqa: N801 - reads as a statement
    """Forgets the terms of words before and after."""

    def __enter__(self) -> None:
        text._terms_of_word.cache_clear()

    def __exit__(self, *_: object) -> None:
        text._terms_of_word.cache_clear()


def print_times(n_tools: int, catalog: Path | None) -> None:
    """Building, opening, changing one tool, and single queries, on a catalogue of so many tools."""
    entries = read_catalogue(catalog or OWN_SETS / "household_catalog.jsonl")
    queries = [
        q.text
        for q in read_queries(
            OWN_SETS / "household_queries.jsonl",
            [e.id for e in read_catalogue(OWN_SETS / "household_catalog.jsonl")],
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "catalog.jsonl", Path(folder) / "cache"
        rows = made_up(entries, n_tools)
        write(path, rows)
        build_s, index = timed_open(path, cache)
        index.close()
        open_s, index = timed_open(path, cache)
        milliseconds = sorted(query_ms(index, query) for query in queries * 5 for _ in range(2))
        index.close()
        rows[n_tools // 2]["description"] = "Changed in the meantime"
        write(path, rows)
        change_s, index = timed_open(path, cache)
        index.close()
        size = sum(file.stat().st_size for file in cache.iterdir())
    p50, p95 = (milliseconds[int(share * len(milliseconds))] for share in (0.5, 0.95))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{n_tools} tools: build {build_s:.2f} s, open {open_s:.2f} s, one tool changed {change_s:.2f} s")
    print(f"a query: p50 {p50:.2f} ms, p95 {p95:.2f} ms over {len(milliseconds)}")
    print(f"the file {size / 2**20:.1f} MiB, peak memory {peak:.0f} MiB")


def made_up(entries: list[CatalogueTool], n_tools: int) -> list[dict[str, object]]:
    """Tools with the fields of real ones, mixed and numbered, each with a word of its own."""
    rng = np.random.default_rng(0)
    words = [word for entry in entries for word in entry.tool.description.split()]
    rows: list[dict[str, object]] = []
    for n in range(n_tools):
        tool = entries[n % len(entries)].tool.to_openai()["function"]
        assert isinstance(tool, dict)
        extra = " ".join(rng.choice(words, 12))
        description = f"{tool.get('description', '')} {extra} item{n:x}"
        rows.append({**tool, "name": f"{tool['name']}_{n}", "description": description})
    return rows


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def timed_open(path: Path, cache: Path) -> tuple[float, ToolIndex]:
    started = time.perf_counter()
    index, _ = open_index(path, cache)
    return time.perf_counter() - started, index


def query_ms(index: ToolIndex, query: str) -> float:
    started = time.perf_counter()
    index.search(query, 5)
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
