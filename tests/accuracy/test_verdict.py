from __future__ import annotations

import dataclasses

import pytest

from edge.accuracy.compare import Distances, compare_tasks
from edge.accuracy.distance import DistanceSummary
from edge.accuracy.metrics import METRICS, CaseScore
from edge.accuracy.verdict import Thresholds, judge, overall


def scores(values):
    parts = [{metric: (float(v), 1.0) for metric in METRICS} for v in values]
    return [
        CaseScore(f"c{i}", "s", bool(v), part, 1, 0)
        for i, (v, part) in enumerate(zip(values, parts, strict=True))
    ]


SUMMARY = DistanceSummary(100, 0.02, 0.01, 0.1, 0.2, 0.95, 2.0, 2.1, 1.05, 0.3)


def distances(**changes):
    found = Distances(SUMMARY, None, {}, (0.01, 0.03), (0.93, 0.97), (), 0)
    return dataclasses.replace(found, **changes)


def outcomes(reference, candidate, thresholds, found=None, same_file=False):
    tasks = compare_tasks(scores(reference), scores(candidate))
    return judge("q4", thresholds, tasks, len(reference), found, same_file=same_file)


@pytest.mark.parametrize(
    ("n_cases", "n_lost", "threshold", "outcome"),
    [
        (400, 0, 0.02, "pass"),
        (400, 2, 0.02, "pass"),
        (400, 8, 0.02, "undecided"),  # 0.02 itself, 0.0075 to 0.035
        (400, 40, 0.02, "fail"),
        (24, 0, 0.02, "undecided"),  # no loss seen, but 24 cases cannot rule out one of 12 %
        (24, 0, 0.15, "pass"),
        (24, 12, 0.02, "fail"),
        (24, 1, 0.0, "undecided"),
    ],
)
def test_a_drop_is_judged_by_its_interval(n_cases, n_lost, threshold, outcome):
    candidate = [0] * n_lost + [1] * (n_cases - n_lost)
    (found,) = outcomes([1] * n_cases, candidate, Thresholds(max_f1_drop=threshold))
    assert found.outcome == outcome
    assert found.value == pytest.approx(n_lost / n_cases)


def test_cannot_tell_says_how_many_cases_could():
    (found,) = outcomes([1] * 24, [1] * 24, Thresholds(max_f1_drop=0.02))
    assert "cannot tell with 24 cases" in found.reason
    assert "about 150 cases could tell" in found.reason


def test_a_gain_is_no_drop():
    (found,) = outcomes([0] * 200 + [1] * 200, [1] * 400, Thresholds(max_f1_drop=0.02))
    assert found.outcome == "pass"


def test_the_same_bytes_pass_with_any_number_of_cases():
    (found,) = outcomes([1] * 3, [1] * 3, Thresholds(max_f1_drop=0.0), same_file=True)
    assert found.outcome == "pass"


def test_identical_distributions_pass_with_any_number_of_cases():
    same = dataclasses.replace(SUMMARY, kld_max=0.0, same_top=1.0, max_dp=0.0)
    (found,) = outcomes([1] * 3, [1] * 3, Thresholds(max_f1_drop=0.0), distances(everywhere=same))
    assert found.outcome == "pass"
    (found,) = outcomes([1] * 3, [1] * 3, Thresholds(max_f1_drop=0.0), distances())
    assert found.outcome == "undecided"


@pytest.mark.parametrize(
    ("thresholds", "outcome"),
    [
        ({"max_kld": 0.005}, "fail"),
        ({"max_kld": 0.02}, "undecided"),
        ({"max_kld": 0.03}, "pass"),
        ({"min_same_top": 0.98}, "fail"),
        ({"min_same_top": 0.95}, "undecided"),
        ({"min_same_top": 0.93}, "pass"),
    ],
)
def test_distances_are_judged_by_their_intervals(thresholds, outcome):
    (found,) = outcomes([1] * 9, [1] * 9, Thresholds(max_f1_drop=None, **thresholds), distances())
    assert found.outcome == outcome


def test_a_distance_that_was_not_measured_is_undecided():
    found = outcomes([1], [1], Thresholds(max_f1_drop=None, max_kld=1.0, min_same_top=0.0))
    assert [criterion.outcome for criterion in found] == ["undecided"] * 2


def test_the_worst_outcome_is_the_verdict():
    def of(*names):
        (base,) = outcomes([1], [1], Thresholds(), same_file=True)
        return overall([dataclasses.replace(base, outcome=name) for name in names])

    assert of("pass", "pass") == "pass"
    assert of("pass", "undecided") == "undecided"
    assert of("undecided", "fail", "pass") == "fail"
    assert overall([]) == "undecided"


def test_flipped_cases_are_named():
    found = compare_tasks(scores([1, 1, 0]), scores([1, 0, 1]))
    assert (found.worse, found.better) == (("c1",), ("c2",))
