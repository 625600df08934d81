"""The result as text: for the terminal, and as Markdown that can go into a model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge.accuracy.metrics import METRICS

Json = dict[str, Any]
TITLES = {
    "tool_selection_f1": "Tool selection F1",
    "precision": "Precision",
    "recall": "Recall",
    "json_validity": "JSON validity",
    "schema_validity": "Schema validity",
    "argument_match": "Argument match",
    "no_tool_accuracy": "No-tool accuracy",
    "case_accuracy": "Case accuracy",
}
DISTANCE_TITLES = {
    "kld_mean": "KL divergence, mean",
    "kld_median": "KL divergence, median",
    "kld_p99": "KL divergence, 99 %",
    "kld_max": "KL divergence, largest",
    "same_top": "Same top token",
    "ppl_ratio": "Perplexity ratio",
    "max_dp": "Largest change of a probability",
    "n_tokens": "Tokens compared",
}
VERDICTS = {
    "pass": "pass: no candidate lost more than allowed",
    "fail": "fail: a candidate lost more than allowed",
    "undecided": "undecided: these cases cannot tell",
}


def to_text(document: Json) -> str:
    """For the terminal: tables, definitions, the verdict last, where it is read first."""
    return to_markdown(document, with_flips=False)


def to_markdown(document: Json, *, with_flips: bool = True) -> str:
    """The block for a model card."""
    parts = [
        f"### Quantization check: {VERDICTS[document['verdict']]}",
        f"{document['cases']} cases, reference {document['reference']}, greedy. Intervals are 95 %, paired bootstrap.",
        _table(["with grammar", *_names(document)], metric_rows(document, "metrics")),
    ]
    if any(variant["without_grammar"] for variant in document["variants"]):
        parts.append(_table(["without grammar", *_names(document)], metric_rows(document, "without_grammar")))
    parts.append(_table(["F1 by scenario", *_names(document)], scenario_rows(document)))
    if document["distribution"]:
        columns = distance_columns(document)
        parts.append(_table(["distribution", *columns], distance_rows(document)))
    parts += [_flips_line(flips) for flips in document["flips"]]
    if with_flips:
        parts += [_flip_table(flips) for flips in document["flips"] if flips["cases"]]
    parts.append("\n".join(f"- {criterion_line(criterion)}" for criterion in document["criteria"]))
    parts += [f"Note: {note}." for note in document["notes"]]
    parts.append("\n".join(f"- {TITLES[name]}: {document['definitions'][name]}." for name in METRICS))
    parts.append(f"**Verdict: {document['verdict']}**")
    return "\n\n".join(part for part in parts if part) + "\n"


def criterion_line(criterion: Json) -> str:
    """One threshold's outcome in words."""
    return f"{criterion['candidate']}, {criterion['quantity']}: {criterion['outcome']}; {criterion['reason']}"


def metric_rows(document: Json, which: str) -> list[list[str]]:
    """A row a metric: its title, each variant's value, a candidate's with its difference."""
    rows = []
    for metric in METRICS:
        row = [TITLES[metric]]
        for variant in document["variants"]:
            values = variant[which]
            cell = number(values[metric] if values else None)
            found = _difference(document, variant["name"], metric, which)
            if found and found["ci95"] and found["delta"] is not None:
                low, high = found["ci95"]
                cell += f" ({found['delta']:+.3f}, {low:+.3f} to {high:+.3f})"
            row.append(cell)
        rows.append(row)
    return rows


def _difference(document: Json, candidate: str, metric: str, which: str) -> Json | None:
    for row in document["differences"]:
        if row["candidate"] == candidate and row["metric"] == metric:
            found: Json | None = row if which == "metrics" else row.get("without_grammar")
            return found
    return None


def scenario_rows(document: Json) -> list[list[str]]:
    """A row a scenario: its name and cases, each variant's F1."""
    rows = []
    for name, values in document["variants"][0]["by_scenario"].items():
        cells = [
            number(variant["by_scenario"][name]["tool_selection_f1"]) for variant in document["variants"]
        ]
        rows.append([f"{name} ({values['cases']})", *cells])
    return rows


def distance_columns(document: Json) -> list[str]:
    """Each measured candidate, everywhere and inside calls."""
    return [f"{row['candidate']}{where}" for row in document["distribution"] for where in ("", ", in calls")]


def distance_rows(document: Json) -> list[list[str]]:
    """A row a figure."""
    return [
        [title]
        + [_distance(key, found) for row in document["distribution"] for found in (row, row["in_calls"])]
        for key, title in DISTANCE_TITLES.items()
    ]


def _distance(key: str, found: Json | None) -> str:
    if found is None:
        return "–"
    value = found[key]
    if key == "n_tokens":
        return f"{value:,}"
    if key in ("same_top", "max_dp"):
        return f"{value:.2%}"
    return f"{value:.4f}" if key == "ppl_ratio" else f"{value:.5f}"


def number(value: float | None) -> str:
    """A metric to three places."""
    return "–" if value is None else f"{value:.3f}"


def _names(document: Json) -> list[str]:
    return [variant["name"] for variant in document["variants"]]


def _flips_line(flips: Json) -> str:
    return (
        f"{flips['candidate']}: {flips['worse']} cases went from right to wrong, {flips['better']} from wrong to "
        f"right (McNemar's exact p = {flips['mcnemar_p']:.3g}). The smallest drop of F1 that these cases could have "
        f"shown is {flips['smallest_visible_f1_drop']:.3f}."
    )


def _flip_table(flips: Json) -> str:
    rows = [
        [
            case["id"],
            case["scenario"],
            case["change"],
            _one_line(case["reference"]),
            _one_line(case["candidate"]),
        ]
        for case in flips["cases"]
    ]
    return _table([f"flipped: {flips['candidate']}", "scenario", "change", "reference", "candidate"], rows)


def _one_line(answer: Json) -> str:
    text = " ".join([*answer["calls"], answer["content"] or answer["error"]]).replace("|", "\\|")
    text = " ".join(text.split())
    return f"`{text[:160]}{'…' if len(text) > 160 else ''}`".replace("``", "–")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
