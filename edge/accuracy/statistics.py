"""What chance alone can do: paired bootstrap, McNemar's exact test, the smallest drop that could have been seen.

All of it compares two variants on the same cases; the cases are the sample. Seeds are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge.accuracy.metrics import Part

N_RESAMPLES = 10_000
SEED = 20_261_121
_BLOCK_CELLS = 1 << 21  # resamples times cases worked on at once
_MAX_CELLS, _MIN_RESAMPLES = 1 << 25, 1000  # kept: 64 MiB; more than 3,355 cases get fewer resamples
_Z_975, _Z_80 = 1.959964, 0.841621
# Six cases lost and none gained is the least that the exact test calls significant: 2 / 2^6 = 0.031.
_MIN_FLIPS = 6

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """candidate minus reference, with a 95 % interval. None where there was nothing to compare."""

    delta: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Flips:
    """Cases that went from right to wrong and from wrong to right; p of such a split if both were equally likely."""

    n_worse: int
    n_better: int
    p_value: float


@lru_cache(maxsize=4)
def resample_weights(n_cases: int, n_resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each case is drawn in each resample, shape (n_resamples, n_cases). The same for every metric."""
    rng = np.random.default_rng(seed)
    weights = np.empty((n_resamples, n_cases), dtype=np.uint16)
    block = max(1, _BLOCK_CELLS // n_cases)
    for start in range(0, n_resamples, block):
        n = min(block, n_resamples - start)
        drawn = rng.integers(n_cases, size=(n, n_cases)) + np.arange(n)[:, None] * n_cases
        weights[start : start + n] = np.bincount(drawn.ravel(), minlength=n * n_cases).reshape(n, n_cases)
    return weights


def paired_difference(
    reference: Sequence[Part], candidate: Sequence[Part], *, n_resamples: int = N_RESAMPLES, seed: int = SEED
) -> Difference:
    """Difference of a metric and its bootstrap interval, cases drawn with replacement, both variants together."""
    parts = np.asarray([[*r, *c] for r, c in zip(reference, candidate, strict=True)], dtype=np.float64)
    if not len(parts):
        return Difference(None, None, None)
    above, below, other_above, other_below = parts.sum(axis=0)
    if not below or not other_below:
        return Difference(None, None, None)
    low, high = np.quantile(_resampled(parts, n_resamples, seed), [0.025, 0.975])
    return Difference(float(other_above / other_below - above / below), float(low), float(high))


def _resampled(parts: Floats, n_resamples: int, seed: int) -> Floats:
    """The difference in each resample; those in which a metric has no case are left out.

    parts: (cases, 4), the reference's summands and the candidate's.
    """
    n_resamples = max(_MIN_RESAMPLES, min(n_resamples, _MAX_CELLS // len(parts)))
    weights = resample_weights(len(parts), n_resamples, seed)
    block = max(1, _BLOCK_CELLS // len(parts))
    sums = np.concatenate([weights[i : i + block] @ parts for i in range(0, n_resamples, block)])
    with np.errstate(divide="ignore", invalid="ignore"):
        deltas: Floats = sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1]
    return deltas[np.isfinite(deltas)]


def interval(
    parts: Sequence[Part], *, n_resamples: int = 2000, seed: int = SEED
) -> tuple[float, float] | None:
    """95 % bootstrap interval of one variant's metric."""
    against_nothing = [(0.0, 1.0)] * len(parts)
    found = paired_difference(against_nothing, parts, n_resamples=n_resamples, seed=seed)
    return None if found.low is None or found.high is None else (found.low, found.high)


def mcnemar(reference_right: Sequence[bool], candidate_right: Sequence[bool]) -> Flips:
    """The exact two-sided test on the cases that only one of both got right."""
    pairs = list(zip(reference_right, candidate_right, strict=True))
    worse, better = pairs.count((True, False)), pairs.count((False, True))
    return Flips(worse, better, exact_p(worse, better))


def exact_p(n_worse: int, n_better: int) -> float:
    """P of a split at least this uneven under a fair coin; 1 without flips."""
    n = n_worse + n_better
    tail = sum(math.comb(n, k) for k in range(min(n_worse, n_better) + 1))
    return min(1.0, 2.0 * (tail / (1 << n)))


def smallest_visible_drop(differences: Sequence[float]) -> float:
    """The drop that this many cases would have shown with 80 % chance at 5 % error, given how cases differ.

    differences: candidate minus reference, by case. (z_0.975 + z_0.8) * sd / sqrt(n); where (almost) no case differs
    that formula says nothing, and the least that can be seen is six cases.
    """
    n = len(differences)
    if n < 2:
        return 1.0
    spread = float(np.std(np.asarray(differences, dtype=np.float64), ddof=1))
    return min(1.0, max((_Z_975 + _Z_80) * spread / math.sqrt(n), _MIN_FLIPS / n))


def unseen_rate(n_cases: int) -> float:
    """The largest share of lost cases of which none would be seen in this many, with 95 % confidence: about 3 / n."""
    return float(1 - 0.05 ** (1 / n_cases)) if n_cases else 1.0
