from __future__ import annotations

import math

import numpy as np
import pytest

from edge.accuracy.distance import Positions, compare_rows, compare_texts, summarize_positions

RNG = np.random.default_rng(3)


def exact(reference, candidate, target):
    """The same figures in float64, the long way."""
    p, q = reference.astype(np.float64), candidate.astype(np.float64)
    p, q = (x - x.max() - np.log(np.exp(x - x.max()).sum()) for x in (p, q))
    return float((np.exp(p) * (p - q)).sum()), p[target], q[target], p.argmax() == q.argmax()


@pytest.mark.parametrize("noise", [1e-4, 1e-2, 0.3, 3.0])
@pytest.mark.parametrize("spread", [0.5, 6.0])
def test_a_row_agrees_with_float64(noise, spread):
    for _ in range(20):
        row = (RNG.normal(size=5000) * spread + 12).astype(np.float32)
        other = (row + RNG.normal(size=5000) * noise + 2.5).astype(np.float32)
        target = int(RNG.integers(5000))
        found, wanted = compare_rows(row, other, target), exact(row, other, target)
        assert found[0] == pytest.approx(wanted[0], rel=2e-3, abs=2e-7)
        assert found[1:3] == pytest.approx(wanted[1:3], abs=1e-5)
        assert found[3] == wanted[3]


def test_equal_rows_have_no_distance_at_all():
    row = (RNG.normal(size=5000) * 8).astype(np.float32)
    divergence, p, q, same = compare_rows(row, row.copy(), 7)
    assert (divergence, same) == (0.0, True)
    assert p == q


def test_a_divergence_by_hand():
    """p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): 1/2 ln 2 - 1/4 ln 2."""
    p, q = (np.log(np.array(x, dtype=np.float32)) for x in ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]))
    divergence, log_p, log_q, same = compare_rows(p, q, 2)
    assert divergence == pytest.approx(0.25 * math.log(2), rel=1e-6)
    assert (log_p, log_q) == pytest.approx((math.log(0.25), math.log(0.25)), rel=1e-6)
    assert not same


def test_inputs_are_left_as_they_are():
    row, other = (RNG.normal(size=100).astype(np.float32) for _ in range(2))
    before = row.copy(), other.copy()
    compare_rows(row, other, 0)
    assert (row == before[0]).all()
    assert (other == before[1]).all()


def test_chunks_of_different_sizes_are_read_in_step():
    rows = RNG.normal(size=(7, 50)).astype(np.float32)
    others = RNG.normal(size=(7, 50)).astype(np.float32)
    found = compare_texts([rows[:3], rows[3:]], [others[:5], others[5:]], range(7), [False] * 7)
    whole = compare_texts([rows], [others], range(7), [False] * 7)
    assert found == whole
    with pytest.raises(ValueError, match="longer"):
        compare_texts([rows[:3]], [others], range(7), [False] * 7)


def text(kld, log_p, log_q, same, in_call):
    return Positions(tuple(kld), tuple(log_p), tuple(log_q), tuple(same), tuple(in_call))


def test_a_summary_by_hand():
    half, quarter = math.log(0.5), math.log(0.25)
    one = text([0.0, 0.2], [half, half], [half, quarter], [True, False], [False, True])
    other = text([0.1], [quarter], [half], [True], [True])
    found = summarize_positions([one, other])
    assert (found.n_tokens, found.kld_median, found.kld_max) == (3, 0.1, 0.2)
    assert found.kld_mean == pytest.approx(0.1)
    assert found.same_top == pytest.approx(2 / 3)
    assert found.ppl_reference == pytest.approx(2 ** (4 / 3))
    assert found.ppl_ratio == pytest.approx(1.0)
    assert found.max_dp == pytest.approx(0.25)
    inside = summarize_positions([one.calls_only(), other.calls_only()])
    assert (inside.n_tokens, inside.same_top) == (2, 0.5)
    assert summarize_positions([]) is None
