"""pass, fail or undecided: what the intervals say about the thresholds.

A threshold is kept when the whole 95 % interval is on its good side, broken when the whole interval is on its bad
side, and undecided in between: then more cases are needed, not a braver reading of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge.accuracy.compare import Distances, TaskComparison
from edge.accuracy.metrics import HEADLINE
from edge.accuracy.statistics import unseen_rate

Outcome: TypeAlias = Literal["pass", "fail", "undecided"]
DEFAULT_MAX_F1_DROP = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What a candidate may lose. max_kld: mean, in nats. None: not asked."""

    max_f1_drop: float | None = DEFAULT_MAX_F1_DROP
    max_kld: float | None = None
    min_same_top: float | None = None


@dataclass(frozen=True, slots=True)
class Criterion:
    """One threshold for one candidate, with what was found and why that is the outcome."""

    candidate: str
    quantity: str
    threshold: float
    value: float | None
    low: float | None
    high: float | None
    outcome: Outcome
    reason: str


def judge(
    candidate: str,
    thresholds: Thresholds,
    tasks: TaskComparison,
    n_cases: int,
    distances: Distances | None,
    *,
    same_file: bool,
) -> list[Criterion]:
    """Every threshold that was asked for. same_file: reference and candidate are the same bytes."""
    criteria = []
    identical = same_file or (distances is not None and distances.everywhere.is_identical)
    if thresholds.max_f1_drop is not None:
        criteria.append(_judge_drop(candidate, thresholds.max_f1_drop, tasks, n_cases, identical))
    if thresholds.max_kld is not None:
        criteria.append(_judge_kld(candidate, thresholds.max_kld, distances))
    if thresholds.min_same_top is not None:
        criteria.append(_judge_same_top(candidate, thresholds.min_same_top, distances))
    return criteria


def overall(criteria: Sequence[Criterion]) -> Outcome:
    """The worst of all outcomes; undecided without any criterion."""
    outcomes = {criterion.outcome for criterion in criteria}
    if "fail" in outcomes:
        return "fail"
    return "pass" if outcomes == {"pass"} else "undecided"


def _judge_drop(
    candidate: str, threshold: float, tasks: TaskComparison, n_cases: int, identical: bool
) -> Criterion:
    found = tasks.differences[HEADLINE]
    assert found.delta is not None
    assert found.low is not None
    assert found.high is not None
    drop, low, high = (0.0 - x for x in (found.delta, found.high, found.low))  # and not -0.0
    if identical and tasks.n_differing == 0:
        return Criterion(
            candidate,
            "f1_drop",
            threshold,
            drop,
            low,
            high,
            "pass",
            "every probability and answer is the same",
        )
    # Resampling cannot see losses of a kind that none of these cases happens to show.
    high = max(high, unseen_rate(n_cases))
    if low > threshold:
        reason = f"F1 fell by {drop:.3f}, and by more than {threshold:g} with 95 % confidence"
        return Criterion(candidate, "f1_drop", threshold, drop, low, high, "fail", reason)
    if high <= threshold:
        reason = f"F1 fell by {drop:.3f}, at most by {high:.3f} with 95 % confidence"
        return Criterion(candidate, "f1_drop", threshold, drop, low, high, "pass", reason)
    reason = (
        f"cannot tell with {n_cases} cases: the drop of F1 lies between {low:.3f} and {high:.3f}, "
        f"the threshold is {threshold:g}; about {_cases_needed(tasks, n_cases, threshold):,} cases could tell"
    )
    return Criterion(candidate, "f1_drop", threshold, drop, low, high, "undecided", reason)


def _cases_needed(tasks: TaskComparison, n_cases: int, threshold: float) -> int:
    """How many cases show a drop of the threshold's size: what is seen shrinks with the root of their number."""
    if threshold <= 0:
        return 10 * n_cases
    by_unseen = math.log(0.05) / math.log1p(-min(threshold, 0.99))
    by_spread = n_cases * (tasks.smallest_drop / threshold) ** 2 if tasks.n_differing else 0.0
    needed = int(max(by_unseen, by_spread, n_cases)) + 1
    step: int = 10 ** max(1, len(str(needed)) - 2)  # two digits are all that this can promise
    return -(-needed // step) * step


def _judge_kld(candidate: str, threshold: float, distances: Distances | None) -> Criterion:
    if distances is None or distances.kld_interval is None:
        return _unmeasured(candidate, "kld_mean", threshold)
    low, high = distances.kld_interval
    value = distances.everywhere.kld_mean
    outcome: Outcome = "fail" if low > threshold else "pass" if high <= threshold else "undecided"
    reason = (
        f"mean KL divergence is {value:.4g}, 95 % interval {low:.4g} to {high:.4g}; allowed is {threshold:g}"
    )
    return Criterion(candidate, "kld_mean", threshold, value, low, high, outcome, reason)


def _judge_same_top(candidate: str, threshold: float, distances: Distances | None) -> Criterion:
    if distances is None or distances.same_top_interval is None:
        return _unmeasured(candidate, "same_top", threshold)
    low, high = distances.same_top_interval
    value = distances.everywhere.same_top
    outcome: Outcome = "fail" if high < threshold else "pass" if low >= threshold else "undecided"
    reason = (
        f"the same token is likeliest at {value:.2%} of places, 95 % interval {low:.2%} to {high:.2%}; "
        f"needed is {threshold:.2%}"
    )
    return Criterion(candidate, "same_top", threshold, value, low, high, outcome, reason)


def _unmeasured(candidate: str, quantity: str, threshold: float) -> Criterion:
    reason = "no distribution was measured: it takes two variants whose logits can be read"
    return Criterion(candidate, quantity, threshold, None, None, None, "undecided", reason)
