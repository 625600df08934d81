from __future__ import annotations

import numpy as np
import pytest

from edge.accuracy.statistics import (
    exact_p,
    interval,
    mcnemar,
    paired_difference,
    smallest_visible_drop,
    unseen_rate,
)


@pytest.mark.parametrize(
    ("worse", "better", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (6, 0, 2 / 64),
        (0, 6, 2 / 64),
        (8, 2, 2 * 56 / 1024),
        (3, 3, 1.0),
    ],
)
def test_the_exact_test_by_hand(worse, better, p):
    assert exact_p(worse, better) == pytest.approx(p)


def test_many_flips_do_not_overflow():
    assert 0 < exact_p(1100, 1000) < 0.05


def test_flips_are_counted_by_pair():
    found = mcnemar([True, True, False, True], [True, False, True, False])
    assert (found.n_worse, found.n_better, found.p_value) == (2, 1, 1.0)


def parts(values):
    return [(float(value), 1.0) for value in values]


def test_equal_variants_have_no_difference_and_no_interval():
    same = parts([1, 0, 1, 0.5])
    found = paired_difference(same, same)
    assert (found.delta, found.low, found.high) == (0, 0, 0)


def test_the_same_cases_give_the_same_interval():
    rng = np.random.default_rng(5)
    one, other = parts(rng.random(50)), parts(rng.random(50))
    assert paired_difference(one, other) == paired_difference(one, other)


def test_pairs_are_drawn_together():
    """Two variants that differ by 0.1 in every case differ by 0.1 in every resample, however the cases vary."""
    rng = np.random.default_rng(5)
    values = rng.random(40) * 0.9
    found = paired_difference(parts(values), parts(values + 0.1))
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Right in 8 of 10 cases against 7 of 10, 120 cases: the true difference lies inside in about 95 % of samples."""
    rng = np.random.default_rng(11)
    n_inside, n_tries = 0, 200
    for _ in range(n_tries):
        one, other = rng.random(120) < 0.8, rng.random(120) < 0.7
        found = paired_difference(parts(one), parts(other), n_resamples=400, seed=int(rng.integers(1 << 30)))
        n_inside += found.low <= -0.1 <= found.high
    assert 0.90 <= n_inside / n_tries <= 0.99


def test_a_metric_that_no_case_counts_for_has_no_difference():
    found = paired_difference([(0.0, 0.0)] * 3, [(0.0, 0.0)] * 3)
    assert (found.delta, found.low) == (None, None)


def test_shares_of_sums_are_not_means_of_shares():
    found = paired_difference([(1.0, 1.0), (0.0, 3.0)], [(1.0, 1.0), (3.0, 3.0)])
    assert found.delta == pytest.approx(0.75)


def test_the_interval_of_one_variant():
    low, high = interval(parts([1] * 90 + [0] * 10))
    assert 0.82 < low < 0.9 < high < 0.97
    assert interval([]) is None


def test_the_smallest_visible_drop():
    assert smallest_visible_drop([0.0] * 200) == pytest.approx(6 / 200)
    # 10 of 100 lost, 10 won: sd 0.449, 2.80 * 0.449 / 10
    assert smallest_visible_drop([-1.0] * 10 + [1.0] * 10 + [0.0] * 80) == pytest.approx(0.126, abs=0.001)
    assert smallest_visible_drop([0.0] * 3) == 1.0


def test_the_rule_of_three():
    assert unseen_rate(300) == pytest.approx(3 / 300, rel=0.01)
    assert unseen_rate(1) == pytest.approx(0.95)
