"""`check`: what quantization cost, with a verdict."""

from __future__ import annotations

import json as json_module
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import REF_HELP, JsonOption, ThinkOption, VerboseOption
from edge.cli.progress import tell
from edge.cli.session import set_up_logging
from edge.errors import ModelError, RequestError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edge.accuracy.check import CheckResult
    from edge.accuracy.runner import Progress, Runner
    from edge.accuracy.variants import VariantSpec

EXIT_FAIL = 3
_QUIET_S = 5.0  # between two lines of progress


def check_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REFERENCE [CANDIDATE]...",
            help="What the first is compared with. " + REF_HELP + " Also a URL, or transformers:FOLDER.",
        ),
    ] = None,
    eval_: Annotated[
        Path | None, typer.Option("--eval", metavar="FILE", help="Cases, one JSON object a line.")
    ] = None,
    tools: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What bare tool names mean. Default: tools.json beside the cases."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of report.html, report.json, report.md.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="REF", help="The reference, if it is not the first argument."),
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="An OpenAI endpoint as a candidate; may be repeated."),
    ] = None,
    endpoint_model: Annotated[
        str, typer.Option(metavar="NAME", help="Its model. Default: the first that it lists.")
    ] = "",
    endpoint_key: Annotated[
        str,
        typer.Option(
            metavar="KEY", envvar="SMOLTOOLS_EDGE_ENDPOINT_KEY", help="Its API key.", show_envvar=True
        ),
    ] = "",
    max_f1_drop: Annotated[
        float, typer.Option(metavar="X", min=0.0, max=1.0, help="Tool selection F1 may fall by this much.")
    ] = 0.02,
    max_kld: Annotated[
        float | None, typer.Option(metavar="X", min=0.0, help="Mean KL divergence allowed, in nats.")
    ] = None,
    min_same_top: Annotated[
        float | None,
        typer.Option(metavar="X", min=0.0, max=1.0, help="Share of places with the same likeliest token."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Use the first N cases only.")] = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of an answer at most.")] = 512,
    n_ctx: Annotated[
        int | None,
        typer.Option("--n-ctx", metavar="N", help="Context. Default: what the longest case needs."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", envvar="SMOLTOOLS_EDGE_THREADS", help="Default: the physical cores."),
    ] = None,
    think: ThinkOption = None,
    grammar_only: Annotated[
        bool, typer.Option("--grammar-only", help="Leave out the answers without the grammar.")
    ] = False,
    tasks_only: Annotated[
        bool, typer.Option("--tasks-only", help="Leave out the comparison of distributions.")
    ] = False,
    force_compare: Annotated[
        bool, typer.Option("--force-compare", help="Compare files that are not the same model.")
    ] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Finished cases. Default: `work` in the report, or the user's cache."
        ),
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run the cases on this Ray cluster.")
    ] = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what quantization cost: task metrics, distributions, a verdict. Exit code 3 if it is fail.

    Example: smoltools-edge check bf16.gguf q8_0.gguf q4_k_m.gguf --eval cases.jsonl --report out
    """
    from edge.accuracy.cases import read_cases
    from edge.accuracy.check import CheckOptions, check
    from edge.accuracy.variants import AnswerOptions
    from edge.accuracy.verdict import Thresholds

    set_up_logging(verbose)
    if eval_ is None:
        raise typer.BadParameter("cases are needed: --eval FILE", param_hint="--eval")
    texts = ([reference] if reference else []) + (models or []) + (endpoint or [])
    if len(texts) < 2:
        raise typer.BadParameter("a reference and at least one candidate are needed", param_hint="REFERENCE")
    cases = read_cases(eval_, tools, limit=limit)
    specs = _specs(texts, endpoint_model, endpoint_key)
    if report is not None:
        _check_folder(report)
    options = CheckOptions(
        reference=specs[0],
        candidates=tuple(specs[1:]),
        work=work or _work_folder(report),
        answering=AnswerOptions(n_ctx=n_ctx, n_threads=threads, max_tokens=max_tokens, think=think),
        thresholds=Thresholds(max_f1_drop=max_f1_drop, max_kld=max_kld, min_same_top=min_same_top),
        force_compare=force_compare,
        without_grammar=not grammar_only,
        distances=not tasks_only,
    )
    try:
        with _runner(ray) as run, drawn_progress() as on_progress:
            result = check(options, cases, on_progress, run)
    except KeyboardInterrupt:
        tell(f"what was finished is kept in {options.work}; the same command goes on from there")
        raise
    _hand_out(result, report, as_json=json)
    if result.verdict == "fail":
        raise typer.Exit(EXIT_FAIL)


def _hand_out(result: CheckResult, report: Path | None, *, as_json: bool) -> None:
    from edge.accuracy.document import to_document
    from edge.accuracy.report import write_report

    document = to_document(result)
    if report is not None:
        for path in write_report(document, result, report):
            tell(f"wrote {path}")
    if as_json:
        typer.echo(json_module.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        from edge.accuracy.report_text import to_text

        typer.echo(to_text(document))


def _specs(texts: list[str], endpoint_model: str, endpoint_key: str) -> list[VariantSpec]:
    """The variants that the texts name, each under a name of its own."""
    specs: list[VariantSpec] = []
    for text in texts:
        spec = _spec(text, endpoint_model, endpoint_key)
        taken = {other.name for other in specs}
        n = 2
        name = spec.name
        while name in taken:
            name, n = f"{spec.name}-{n}", n + 1
        specs.append(replace(spec, name=name))
    return specs


def _spec(text: str, endpoint_model: str, endpoint_key: str) -> VariantSpec:
    from edge.accuracy.variants import VariantSpec
    from edge.chat.template import hermes_template
    from edge.models.store import resolve

    if text.startswith(("http://", "https://")):
        url = text.rstrip("/")
        url = url if url.endswith("/v1") else url + "/v1"
        name = re.sub(r"^https?://|/v1$", "", url)
        return VariantSpec(
            name=name, kind="endpoint", location=url, model=endpoint_model, api_key=endpoint_key
        )
    if text.startswith("transformers:"):
        folder = Path(text.removeprefix("transformers:"))
        if not (folder / "config.json").exists():
            raise ModelError(f"{folder} holds no config.json; transformers: takes a checkpoint's folder")
        return VariantSpec(name=folder.name or "transformers", kind="transformers", location=str(folder))
    resolved = resolve(text, tell)
    entry = resolved.entry
    template = hermes_template(entry.default_system) if entry and entry.chat_template == "hermes" else None
    return VariantSpec(name=resolved.path.stem, kind="gguf", location=str(resolved.path), template=template)


def _check_folder(report: Path) -> None:
    """Refuses a place that cannot become a folder before hours are spent on what would go there.

    Leaves no folder behind: what is asked for may yet be refused.
    """
    made: list[Path] = []
    try:
        made = [place for place in (report, *report.parents) if not place.exists()]
        report.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        told = exc.strerror or str(exc)
        raise RequestError(
            f"the report folder {report} cannot be made: {told}; name one that is there or can be made"
        ) from None
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def _work_folder(report: Path | None) -> Path:
    if report is not None:
        return report / "work"
    import platformdirs

    return Path(platformdirs.user_cache_dir("smoltools-edge")) / "check"


@contextmanager
def _runner(ray: str | None) -> Iterator[Runner]:
    if ray is None:
        from edge.accuracy.runner import run_here

        yield run_here
        return
    from edge.accuracy.cluster import connected

    with connected(ray) as run:
        yield run


@contextmanager
def drawn_progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with the time left on a terminal; elsewhere a line every tenth of a stage. On standard error."""
    if not sys.stderr.isatty():
        yield ProgressLines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=Console(stderr=True), speed_estimate_period=300) as bars:
        whole = bars.add_task("all", total=None)
        tasks: dict[str, TaskID] = {}

        def draw(step: Progress) -> None:
            if step.stage not in tasks:
                tasks[step.stage] = bars.add_task(step.stage, total=step.total, completed=step.done)
                # What is found on disk took no time and must not count as speed.
                bars.reset(whole, total=step.overall_total, completed=step.overall_done, start=True)
            bars.update(tasks[step.stage], completed=step.done)
            bars.update(whole, completed=step.overall_done, total=step.overall_total)

        yield draw


class ProgressLines:
    """One line a tenth, with the time that the rest of the stage will take at the speed so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._stage = clock, ""
        self._started = self._told_at = 0.0
        self._told = -1

    def show(self, step: Progress) -> None:
        """Tells how far it is, if that has changed by a tenth."""
        if step.stage != self._stage:
            self._stage, self._started, self._told = step.stage, self._clock(), -1
        tenth, now = 10 * step.done // max(step.total, 1), self._clock()
        is_news = tenth != self._told and now - self._told_at >= _QUIET_S
        if not (is_news or self._told < 0 or step.done == step.total):
            return
        self._told, self._told_at = tenth, now
        left = ""
        if step.fresh and step.done < step.total:
            seconds = (now - self._started) / step.fresh * (step.total - step.done)
            left = f", {_duration(seconds)} left"
        tell(f"{step.stage}: {step.done}/{step.total}{left} (all {step.overall_done}/{step.overall_total})")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    )
