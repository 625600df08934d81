"""One candidate against the reference: differences with intervals, flips, distances, and what could have been seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.accuracy.distance import DistanceSummary, Positions, summarize_positions
from edge.accuracy.metrics import HEADLINE, METRICS, CaseScore, Part
from edge.accuracy.statistics import (
    Difference,
    Flips,
    interval,
    mcnemar,
    paired_difference,
    smallest_visible_drop,
)


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """Both variants' answers to the same cases, in one way of answering (grammar or not).

    worse, better: ids of cases that flipped. smallest_drop: of F1 that these cases could have shown.
    """

    differences: Mapping[str, Difference]
    flips: Flips
    worse: tuple[str, ...]
    better: tuple[str, ...]
    smallest_drop: float
    n_differing: int  # cases whose F1 differs


def compare_tasks(reference: Sequence[CaseScore], candidate: Sequence[CaseScore]) -> TaskComparison:
    """Both lists hold the same cases in the same order."""
    pairs = list(zip(reference, candidate, strict=True))
    assert all(one.case_id == other.case_id for one, other in pairs)
    deltas = [other.f1 - one.f1 for one, other in pairs]
    return TaskComparison(
        differences={
            metric: paired_difference(
                [one.parts[metric] for one in reference], [other.parts[metric] for other in candidate]
            )
            for metric in METRICS
        },
        flips=mcnemar([one.right for one in reference], [other.right for other in candidate]),
        worse=tuple(one.case_id for one, other in pairs if one.right and not other.right),
        better=tuple(one.case_id for one, other in pairs if other.right and not one.right),
        smallest_drop=smallest_visible_drop(deltas),
        n_differing=sum(delta != 0 for delta in deltas),
    )


@dataclass(frozen=True, slots=True)
class Distances:
    """Distances of a candidate from the reference. texts: positions by case id, for each kind of text.

    kld_interval, same_top_interval: 95 %, cases drawn with replacement.
    """

    everywhere: DistanceSummary
    in_calls: DistanceSummary | None
    by_kind: Mapping[str, DistanceSummary]
    kld_interval: tuple[float, float] | None
    same_top_interval: tuple[float, float] | None
    kld_values: tuple[float, ...]
    n_skipped: int


def compare_distances(texts: Mapping[str, Mapping[str, Positions]], n_skipped: int = 0) -> Distances | None:
    """texts: kind of text -> case id -> positions. None where no text has any."""
    every = [positions for of_kind in texts.values() for positions in of_kind.values()]
    everywhere = summarize_positions(every)
    if everywhere is None:
        return None
    by_kind = {kind: summarize_positions(list(of_kind.values())) for kind, of_kind in texts.items()}
    return Distances(
        everywhere=everywhere,
        in_calls=summarize_positions([positions.calls_only() for positions in every]),
        by_kind={kind: summary for kind, summary in by_kind.items() if summary is not None},
        kld_interval=interval(_by_case(texts, lambda p: sum(p.kld))),
        same_top_interval=interval(_by_case(texts, lambda p: sum(p.same_top))),
        kld_values=tuple(value for positions in every for value in positions.kld),
        n_skipped=n_skipped,
    )


def _by_case(texts: Mapping[str, Mapping[str, Positions]], total: object) -> list[Part]:
    """A case's sum and its number of tokens: texts of one case are not independent."""
    assert callable(total)
    sums: dict[str, Part] = {}
    for of_kind in texts.values():
        for case_id, positions in of_kind.items():
            above, below = sums.get(case_id, (0.0, 0.0))
            sums[case_id] = above + total(positions), below + len(positions.kld)
    return list(sums.values())


def f1_parts(scores: Sequence[CaseScore]) -> list[Part]:
    """The summands of the headline metric."""
    return [case.parts[HEADLINE] for case in scores]
