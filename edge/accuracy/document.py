"""The result as one JSON document: what `check --json` prints and `report.json` holds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edge.accuracy.answers import Answer, call_text
from edge.accuracy.check import CandidateResult, CheckResult, VariantResult
from edge.accuracy.compare import TaskComparison
from edge.accuracy.metrics import DEFINITIONS, CaseScore, by_scenario, summarize
from edge.accuracy.statistics import N_RESAMPLES, SEED, Difference

Json = dict[str, Any]


def to_document(result: CheckResult) -> Json:
    """Everything that was found, as JSON values. A metric that nothing was judged by is null."""
    document = {
        "verdict": result.verdict,
        "cases": len(result.cases.cases),
        "variants": [_variant(variant) for variant in result.variants],
        "differences": [row for candidate in result.candidates for row in _differences(candidate)],
        "distribution": [row for candidate in result.candidates for row in _distribution(candidate)],
        "criteria": [dataclasses.asdict(c) for candidate in result.candidates for c in candidate.criteria],
        "flips": [_flips(candidate, result) for candidate in result.candidates],
        "reference": result.reference.spec.name,
        "cases_file": str(result.cases.path),
        "skipped_lines": [{"line": line, "reason": reason} for line, reason in result.cases.skipped],
        "notes": list(result.notes),
        "definitions": dict(DEFINITIONS),
        "settings": _settings(result),
    }
    # Models write half surrogate pairs into JSON strings, which no file can hold: they become question marks.
    text = json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    found: Json = json.loads(text)
    return found


def _variant(variant: VariantResult) -> Json:
    main = variant.scores[variant.main]
    free = variant.scores.get(False)
    answers = variant.answers[variant.main]
    return {
        "name": variant.spec.name,
        "path": variant.spec.location,
        "kind": variant.spec.kind,
        "metrics": summarize(main),
        "by_scenario": by_scenario(main),
        "without_grammar": summarize(free) if free else None,
        "by_scenario_without_grammar": by_scenario(free) if free else None,
        "counts": _counts(main, answers),
        "quantization": variant.facts.get("quantization"),
        "size_bytes": variant.facts.get("size_bytes"),
        "decode_tokens_per_s": _rounded(variant.decode_tokens_per_s),
    }


def _counts(scores: Sequence[CaseScore], answers: Sequence[Answer]) -> Json:
    return {
        "calls": sum(score.n_calls for score in scores),
        "malformed_calls": sum(score.n_malformed for score in scores),
        "right_cases": sum(score.right for score in scores),
        "cut_answers": sum(answer.finish_reason == "length" for answer in answers),
        "failed_cases": sum(bool(answer.error) for answer in answers),
        "completion_tokens": sum(answer.completion_tokens for answer in answers),
    }


def _differences(candidate: CandidateResult) -> list[Json]:
    rows = []
    for metric, found in candidate.tasks[candidate.main].differences.items():
        row = {"candidate": candidate.variant.spec.name, "metric": metric, **_difference(found)}
        if candidate.main and False in candidate.tasks:
            row["without_grammar"] = _difference(candidate.tasks[False].differences[metric])
        rows.append(row)
    return rows


def _difference(found: Difference) -> Json:
    return {"delta": found.delta, "ci95": None if found.low is None else [found.low, found.high]}


def _distribution(candidate: CandidateResult) -> list[Json]:
    distances = candidate.distances
    if distances is None:
        return []
    return [
        {
            "candidate": candidate.variant.spec.name,
            **dataclasses.asdict(distances.everywhere),
            "kld_mean_ci95": distances.kld_interval,
            "same_top_ci95": distances.same_top_interval,
            "in_calls": dataclasses.asdict(distances.in_calls) if distances.in_calls else None,
            "by_text": {kind: dataclasses.asdict(summary) for kind, summary in distances.by_kind.items()},
            "skipped_texts": distances.n_skipped,
        }
    ]


def _flips(candidate: CandidateResult, result: CheckResult) -> Json:
    tasks = candidate.tasks[candidate.main]
    return {
        "candidate": candidate.variant.spec.name,
        "worse": tasks.flips.n_worse,
        "better": tasks.flips.n_better,
        "mcnemar_p": tasks.flips.p_value,
        "smallest_visible_f1_drop": tasks.smallest_drop,
        "cases": flipped_cases(candidate, tasks, result),
    }


def flipped_cases(candidate: CandidateResult, tasks: TaskComparison, result: CheckResult) -> list[Json]:
    """Cases that went from right to wrong, then the others, with what both variants answered."""
    index = {case.id: i for i, case in enumerate(result.cases.cases)}
    reference = (
        result.reference.answers.get(candidate.main) or result.reference.answers[result.reference.main]
    )
    answers = (
        candidate.variant.answers.get(candidate.main) or candidate.variant.answers[candidate.variant.main]
    )
    rows = []
    for change, ids in (("worse", tasks.worse), ("better", tasks.better)):
        for case_id in ids:
            case = result.cases.cases[index[case_id]]
            rows.append(
                {
                    "id": case_id,
                    "scenario": case.scenario,
                    "change": change,
                    "question": _question(case.messages),
                    "expected": [
                        {"name": call.name, "arguments": _plain(call.arguments)} for call in case.expected
                    ],
                    "reference": _shown(reference[index[case_id]]),
                    "candidate": _shown(answers[index[case_id]]),
                }
            )
    return rows


def _question(messages: Sequence[Mapping[str, object]]) -> str:
    users = [str(message["content"]) for message in messages if message.get("role") == "user"]
    return users[-1] if users else ""


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON of any shape
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(value.accepted)  # type: ignore[attr-defined]
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(answer: Answer) -> Json:
    return {
        "calls": [call.text or call_text(call) for call in answer.calls],
        "faults": [call.fault for call in answer.calls if call.fault],
        "content": answer.content,
        "finish_reason": answer.finish_reason,
        "error": answer.error,
    }


def _settings(result: CheckResult) -> Json:
    answering = result.options.answering
    try:
        own = version("smoltools-edge")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "max_tokens": answering.max_tokens,
        "n_ctx": answering.n_ctx,
        "kv_type": answering.kv_type,
        "temperature": 0.0,
        "chat_template": answering.template.origin if answering.template else None,
        "bootstrap_resamples": N_RESAMPLES,
        "seed": SEED,
        "thresholds": dataclasses.asdict(result.options.thresholds),
        "smoltools_edge": own,
        "llama_cpp_python": version("llama-cpp-python"),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 2)
