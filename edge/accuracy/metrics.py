"""Task metrics: how right the calls of an answer are, per case and over many. Definitions are printed from here.

Every metric is a sum over cases divided by another sum over cases, so that resampling cases gives its distribution.
Calls are compared in any order: predicted and expected ones are paired so that as many as possible match.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge.accuracy.answers import Answer, MadeCall
from edge.accuracy.cases import EvalCase, ExpectedCall
from edge.accuracy.values import arguments_match

DEFINITIONS: Mapping[str, str] = {
    "tool_selection_f1": (
        "per case the harmonic mean of precision and recall of the called tools' names, averaged over cases"
    ),
    "precision": (
        "per case the share of its calls that name an expected tool, each expected call counting once; 1 where none "
        "is expected and none is made, 0 where only one of both; averaged over cases"
    ),
    "recall": "per case the share of expected calls whose tool is called, 1 and 0 as above; averaged over cases",
    "json_validity": "share of all call blocks that are a JSON object with a name and an arguments object",
    "schema_validity": "share of all call blocks that call a given tool with arguments that its JSON Schema allows",
    "argument_match": (
        "share of expected calls that were made, valid under the schema, with accepted values for every argument"
    ),
    "no_tool_accuracy": "share of the cases without an expected call in which no call is made, malformed ones included",
    "case_accuracy": "share of cases in which exactly the expected calls are made with accepted arguments",
}
METRICS = tuple(DEFINITIONS)
HEADLINE = "tool_selection_f1"
Part = tuple[float, float]  # a case's summands, above and below the fraction's line


@dataclass(frozen=True, slots=True)
class CaseScore:
    """One answer, judged. parts: by metric. matched: expected calls made with accepted arguments."""

    case_id: str
    scenario: str
    right: bool
    parts: Mapping[str, Part]
    n_calls: int
    n_malformed: int

    @property
    def f1(self) -> float:
        """Tool selection F1 of this case."""
        return self.parts[HEADLINE][0]


def score(case: EvalCase, answer: Answer) -> CaseScore:
    """Judges an answer. One that could not be had (`error`) is wrong, whatever was expected."""
    precision, recall, f1 = _selection(case.expected, answer)
    n_matched = n_matching(case.expected, answer.calls)
    n_calls, n_expected = len(answer.calls), len(case.expected)
    right = not answer.error and n_matched == n_expected == n_calls
    n_json = sum(call.is_json for call in answer.calls)
    n_valid = sum(call.is_json and not call.fault for call in answer.calls)
    is_no_tool = n_expected == 0
    parts: dict[str, Part] = {
        "tool_selection_f1": (f1, 1.0),
        "precision": (precision, 1.0),
        "recall": (recall, 1.0),
        "json_validity": (n_json, n_calls),
        "schema_validity": (n_valid, n_calls),
        "argument_match": (n_matched, n_expected),
        "no_tool_accuracy": (float(is_no_tool and right), float(is_no_tool)),
        "case_accuracy": (float(right), 1.0),
    }
    return CaseScore(case.id, case.scenario, right, parts, n_calls, n_calls - n_valid)


def _selection(expected: Sequence[ExpectedCall], answer: Answer) -> tuple[float, float, float]:
    """Precision, recall and F1 of the tools' names. A block without a readable name is a wrong one."""
    n_expected, n_calls = len(expected), len(answer.calls)
    if answer.error:
        return 0.0, 0.0, 0.0
    if n_expected == 0 or n_calls == 0:
        both_none = float(n_expected == n_calls)
        return both_none, both_none, both_none
    wanted = Counter(call.name for call in expected)
    found = Counter(call.name for call in answer.calls if call.name is not None)
    n_hits = (wanted & found).total()
    return n_hits / n_calls, n_hits / n_expected, 2 * n_hits / (n_calls + n_expected)


def n_matching(expected: Sequence[ExpectedCall], calls: Sequence[MadeCall]) -> int:
    """How many expected calls were made with accepted arguments, at best, each made call serving one of them."""
    fits = [[i for i, call in enumerate(calls) if _is_accepted(call, wanted)] for wanted in expected]
    taken_by: dict[int, int] = {}

    def place(wanted: int, tried: set[int]) -> bool:
        # Augmenting paths: with overlapping accepted values the first fit is not always the one to take.
        for i in fits[wanted]:
            if i not in tried:
                tried.add(i)
                if i not in taken_by or place(taken_by[i], tried):
                    taken_by[i] = wanted
                    return True
        return False

    return sum(place(wanted, set()) for wanted in range(len(expected)))


def _is_accepted(call: MadeCall, wanted: ExpectedCall) -> bool:
    return (
        call.name == wanted.name
        and call.arguments is not None
        and not call.fault
        and arguments_match(call.arguments, wanted.arguments)
    )


def summarize(scores: Sequence[CaseScore]) -> dict[str, float | None]:
    """Every metric over these cases; None where nothing was to be judged (no call, no case without calls)."""
    return {metric: ratio([case.parts[metric] for case in scores]) for metric in METRICS}


def ratio(parts: Sequence[Part]) -> float | None:
    """The sum of the upper parts over that of the lower ones."""
    below = sum(part[1] for part in parts)
    return sum(part[0] for part in parts) / below if below else None


def by_scenario(
    scores: Sequence[CaseScore], of: Callable[[Sequence[CaseScore]], dict[str, float | None]] = summarize
) -> dict[str, dict[str, float | None]]:
    """The metrics of each scenario, with its number of cases."""
    names = dict.fromkeys(case.scenario for case in scores)
    groups = {name: [case for case in scores if case.scenario == name] for name in names}
    return {name: {"cases": len(group), **of(group)} for name, group in groups.items()}
