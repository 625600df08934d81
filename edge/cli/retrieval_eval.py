"""`retrieval-eval`: how well the search over a catalogue finds what queries need."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.catalog import open_catalog
from edge.cli.options import CatalogArgument, EmbedModelOption, JsonOption
from edge.errors import RetrievalError

if TYPE_CHECKING:
    from edge.tools.retrieval.evaluate import Query, RetrievalReport


def retrieval_eval_command(
    catalog: CatalogArgument,
    queries: Annotated[
        Path, typer.Argument(metavar="QUERIES", help='Lines of {"query", "relevant": [id, ...]}.')
    ],
    embed_model: EmbedModelOption = None,
    dense_weight: Annotated[
        float | None,
        typer.Option(metavar="W", min=0.0, max=1.0, help="Of the embedding model's part, 0 to 1."),
    ] = None,
    rankings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what was found for each query, a line each.")
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="For the embedding model.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure the search over a catalogue of tools.

    Example: smoltools-edge retrieval-eval catalog.jsonl queries.jsonl
    """
    from edge.tools.retrieval.evaluate import evaluate, read_queries
    from edge.tools.retrieval.index import SearchOptions

    options = SearchOptions() if dense_weight is None else SearchOptions(dense_weight=dense_weight)
    started = time.perf_counter()
    with open_catalog(catalog, embed_model, n_threads=threads) as index:
        open_s = time.perf_counter() - started
        asked = read_queries(queries, index.ids())
        report = evaluate(index, asked, options=options)
        document = {"catalog": str(catalog), "queries": str(queries), "n_tools": len(index)} | _document(
            report
        )
    document |= {"embed_model": embed_model, "open_s": round(open_s, 3)}
    if rankings is not None:
        _write(rankings, asked, report)
    typer.echo(json_module.dumps(document, indent=2) if json else _table(document))


def _document(report: RetrievalReport) -> dict[str, object]:
    return {
        "n_queries": report.n_queries,
        "ndcg": {str(k): round(value, 4) for k, value in report.ndcg.items()},
        "recall": {str(k): round(value, 4) for k, value in report.recall.items()},
        "mrr": round(report.mrr, 4),
        "query_ms": {"p50": round(report.p50_ms, 2), "p95": round(report.p95_ms, 2)},
    }


def _table(document: dict[str, object]) -> str:
    lines = [f"{document['n_queries']} queries, {document['n_tools']} tools"]
    for name in ("ndcg", "recall"):
        values = document[name]
        assert isinstance(values, dict)
        lines += [f"{name + '@' + k:10} {value:.4f}" for k, value in values.items()]
    times = document["query_ms"]
    assert isinstance(times, dict)
    return "\n".join(
        [*lines, f"{'mrr':10} {document['mrr']:.4f}", f"a query   {times['p50']} ms, p95 {times['p95']} ms"]
    )


def _write(path: Path, queries: list[Query], report: RetrievalReport) -> None:
    rows = (
        {"id": query.id, "query": query.text, "relevant": list(query.relevant), "found": list(found[:10])}
        for query, found in zip(queries, report.rankings, strict=True)
    )
    text = "".join(json_module.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise RetrievalError(f"{path} cannot be written: {exc.strerror}") from None
