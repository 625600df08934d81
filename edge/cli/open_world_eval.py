"""`open-world-eval`: how a model finds and uses tools by itself, over requests with known tools."""

from __future__ import annotations

import dataclasses
import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.catalog import open_catalog
from edge.cli.open_world import done_document
from edge.cli.options import (
    CatalogArgument,
    DeviceProfileOption,
    EmbedModelOption,
    JsonOption,
    ModelOption,
    NCtxOption,
    OpenWorldProfileOption,
    ThreadsOption,
)
from edge.cli.plan import open_planned
from edge.cli.progress import tell
from edge.cli.session import set_up_logging
from edge.errors import OpenWorldError
from profiles.plan import Pins

if TYPE_CHECKING:
    from edge.tools.open_world.evaluate import EpisodeResult


def open_world_eval_command(
    catalog: CatalogArgument,
    requests: Annotated[
        Path,
        typer.Argument(
            metavar="REQUESTS", help='Lines of {"query", "relevant": [id, ...]}, and "responses" if known.'
        ),
    ],
    model: ModelOption = "demo",
    profile: OpenWorldProfileOption = None,
    with_api_list: Annotated[
        bool, typer.Option("--with-api-list", help="Give the needed tools; nothing is searched.")
    ] = False,
    error_rate: Annotated[
        float, typer.Option(metavar="R", min=0.0, max=1.0, help="Share of simulated calls that fail.")
    ] = 0.0,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="The first N requests only.")] = None,
    embed_model: EmbedModelOption = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of a step at most.")] = 512,
    temperature: Annotated[float, typer.Option(metavar="T", min=0.0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same answers.")] = 0,
    n_ctx: NCtxOption = None,
    threads: ThreadsOption = None,
    device_profile: DeviceProfileOption = None,
    runs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what became of each request, a line each.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure how a model finds and uses tools by itself; the tools' answers are simulated.

    Example: smoltools-edge open-world-eval catalog.jsonl requests.jsonl --model toolomni-qwen3-4b
    """
    from edge.engine.request import ChatRequest
    from edge.engine.sampling import SamplingOptions
    from edge.tools.agent import AgentOptions
    from edge.tools.open_world.evaluate import evaluate, read_episodes, summarize
    from edge.tools.open_world.profile import profile_for

    set_up_logging(False)
    with open_catalog(catalog, embed_model) as index:
        episodes = read_episodes(requests, index.ids())[:limit]
        sampling = SamplingOptions(temperature=temperature, seed=seed)
        base = ChatRequest(messages=(), max_tokens=max_tokens, sampling=sampling)
        engine, _ = open_planned(model, Pins(n_ctx=n_ctx, n_threads=threads), profile_file=device_profile)
        with engine:
            words = profile_for(profile, str(engine.facts["name"]))
            results = evaluate(
                engine,
                index,
                episodes,
                words,
                options=AgentOptions(request=base),
                with_api_list=with_api_list,
                error_rate=error_rate,
                progress=_tell_result,
            )
            facts = engine.facts
    report = dataclasses.asdict(summarize(results))
    if runs is not None:
        _write(runs, results)
    setting = "with-api-list" if with_api_list else "open-domain"
    document = report | {"setting": setting, "profile": words.name, "catalog": str(catalog), "model": facts}
    typer.echo(json_module.dumps(document, indent=2) if json else _table(report))


def _tell_result(result: EpisodeResult) -> None:
    done = result.done
    tell(
        f"{result.episode.id}: {done.outcome}, {done.chosen.n_rounds} searches, {len(done.calls)} calls, "
        f"gold {result.gold_recall:.2f}"
    )


def _table(report: dict[str, object]) -> str:
    def shown(value: object) -> str:
        return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    rows = {name: value for name, value in report.items() if not isinstance(value, dict)}
    lines = [f"{name:14} {shown(value)}" for name, value in rows.items()]
    for name in ("outcomes", "choices"):
        counts = report[name]
        assert isinstance(counts, dict)
        lines.append(f"{name:14} " + ", ".join(f"{key} {count}" for key, count in sorted(counts.items())))
    return "\n".join(lines)


def _write(path: Path, results: list[EpisodeResult]) -> None:
    rows = (
        {"id": r.episode.id, "query": r.episode.query, "relevant": r.episode.gold} | done_document(r.done)
        for r in results
    )
    text = "".join(json_module.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise OpenWorldError(f"{path} cannot be written: {exc.strerror}") from None
