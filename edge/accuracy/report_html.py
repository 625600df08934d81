"""The report as one HTML page that needs nothing else: no network, no script. The page itself is a Jinja template."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from edge.accuracy.check import CheckResult, VariantResult
from edge.accuracy.compare import f1_parts
from edge.accuracy.metrics import HEADLINE, METRICS, CaseScore, ratio
from edge.accuracy.plots import Dot, decades_of, divergence_histogram, scenario_plot, trade_off
from edge.accuracy.report_text import (
    DISTANCE_TITLES,
    TITLES,
    distance_columns,
    distance_rows,
    number,
)
from edge.accuracy.statistics import interval

Json = dict[str, Any]
_VERDICT_LINES = {
    "pass": "No candidate lost more than the thresholds allow.",
    "fail": "At least one candidate lost more than a threshold allows.",
    "undecided": "These cases cannot tell whether the thresholds are kept.",
}
_MAX_FLIPS = 200  # per candidate: a page of megabytes helps nobody; report.json has all


def to_html(document: Json, result: CheckResult) -> str:
    """The whole page."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("edge.accuracy").joinpath("templates/report.html.jinja").read_text("utf-8")
    return environment.from_string(source).render(
        document=document,
        verdict_line=_VERDICT_LINES[document["verdict"]],
        cards=_cards(document),
        titles=TITLES,
        metrics=METRICS,
        tables=_metric_tables(document),
        scenario_plot=Markup(scenario_plot(_scenario_rows(result))),
        histograms=[(name, i, Markup(svg)) for name, i, svg in _histograms(result)],
        trade_offs=[Markup(svg) for svg in _trade_offs(result)],
        distance_columns=distance_columns(document),
        distance_rows=distance_rows(document),
        distance_titles=DISTANCE_TITLES,
        flips=_flips(document, Markup),
        number=number,
        megabytes=lambda n: "–" if n is None else f"{n / 1e6:,.0f} MB",
    )


def _cards(document: Json) -> list[Json]:
    """What stands on top for each candidate."""
    measured = {row["candidate"]: row for row in document["distribution"]}
    flips = {row["candidate"]: row for row in document["flips"]}
    cards = []
    for series, variant in enumerate(document["variants"]):
        if series == 0:
            continue
        name = variant["name"]
        criteria = [row for row in document["criteria"] if row["candidate"] == name]
        outcomes = {row["outcome"] for row in criteria}
        cards.append(
            {
                "name": name,
                "series": series,
                "outcome": "fail" if "fail" in outcomes else "pass" if outcomes == {"pass"} else "undecided",
                "criteria": criteria,
                "f1": next(
                    row
                    for row in document["differences"]
                    if row["candidate"] == name and row["metric"] == HEADLINE
                ),
                "value": variant["metrics"][HEADLINE],
                "distribution": measured.get(name),
                "flips": flips[name],
                "variant": variant,
            }
        )
    return cards


def _metric_tables(document: Json) -> list[Json]:
    """The card's tables: with the grammar, and without where it was tried."""
    tables = [{"title": "As the program runs: with the grammar", "key": "metrics", "own": "delta"}]
    if any(variant["without_grammar"] for variant in document["variants"]):
        tables.append({"title": "What the weights do alone: without", "key": "without_grammar", "own": ""})
    for table in tables:
        table["rows"] = [  # type: ignore[assignment]
            [(variant[table["key"]] or {}).get(metric) for variant in document["variants"]]
            for metric in METRICS
        ]
    return tables


def _scenario_rows(result: CheckResult) -> list[tuple[str, list[Dot]]]:
    names = list(dict.fromkeys(case.scenario for case in result.cases.cases))
    if len(names) > 40:  # a file with a scenario of its own for every case
        names = []
    rows = [("all cases", _dots(result, None))]
    for name in names:
        n_cases = sum(case.scenario == name for case in result.cases.cases)
        rows.append((f"{name} ({n_cases})", _dots(result, name)))
    return rows


def _dots(result: CheckResult, scenario: str | None) -> list[Dot]:
    dots = []
    for series, variant in enumerate(result.variants):
        scores = [s for s in variant.scores[variant.main] if scenario is None or s.scenario == scenario]
        dots.append(_dot(series, variant, scores))
    return dots


def _dot(series: int, variant: VariantResult, scores: Sequence[CaseScore]) -> Dot:
    parts = f1_parts(scores)
    value, found = ratio(parts) or 0.0, interval(parts)
    title = f"{variant.spec.name}: {value:.3f}" + (f", {found[0]:.3f} to {found[1]:.3f}" if found else "")
    return Dot(series, value, found, title)


def _histograms(result: CheckResult) -> list[tuple[str, int, str]]:
    measured = [
        (candidate.variant.spec.name, series, candidate.distances.kld_values)
        for series, candidate in enumerate(result.candidates, 1)
        if candidate.distances is not None
    ]
    decades = decades_of([value for _, _, values in measured for value in values])
    return [
        (name, series, divergence_histogram(values, series, decades)) for name, series, values in measured
    ]


def _trade_offs(result: CheckResult) -> list[str]:
    """F1 against file size, and against speed; neither where fewer than two variants have one."""
    sizes, speeds = [], []
    for series, variant in enumerate(result.variants):
        dot = _dot(series, variant, variant.scores[variant.main])
        size, speed = variant.facts.get("size_bytes"), variant.decode_tokens_per_s
        if isinstance(size, int):
            sizes.append((size / 1e9, dot))
        if speed:
            speeds.append((speed, dot))
    plots = [(sizes, "size of the file, GB"), (speeds, "sampled tokens a second, in this run")]
    return [trade_off(dots, unit) for dots, unit in plots if len(dots) > 1]


def _flips(document: Json, markup: type) -> list[Json]:
    """Flipped cases with both outputs, what differs marked."""
    rows = []
    for flips in document["flips"]:
        cases = []
        for case in flips["cases"][:_MAX_FLIPS]:
            reference, candidate = _output(case["reference"]), _output(case["candidate"])
            before, after = marked_difference(reference, candidate, markup)
            cases.append({**case, "before": before, "after": after})
        rows.append({**flips, "shown": cases, "left_out": len(flips["cases"]) - len(cases)})
    return rows


def _output(answer: Json) -> str:
    lines = [answer["content"], *answer["calls"]]
    if answer["error"]:
        lines.append(f"(no answer: {answer['error']})")
    if answer["finish_reason"] == "length":
        lines.append("(cut off)")
    return "\n".join(line for line in lines if line) or "(nothing)"


def marked_difference(before: str, after: str, markup: Any) -> tuple[Any, Any]:  # noqa: ANN401 - markupsafe's type
    """Both texts as HTML, words that only one of them has in <del> and <ins>."""
    old, new = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (before, after))
    out: tuple[list[Any], list[Any]] = ([], [])
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for side, words, tag in ((out[0], old[a:b], "del"), (out[1], new[c:d], "ins")):
            text = markup.escape("".join(words))
            side.append(text if kind == "equal" or not text else markup(f"<{tag}>%s</{tag}>") % text)
    return markup("").join(out[0]), markup("").join(out[1])
