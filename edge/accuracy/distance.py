"""How far two models' next-token distributions lie apart, position by position, and what that comes to.

Measured on given tokens: the KL divergence of the candidate from the reference in nats, whether both have the same
likeliest token, and the probability that each gave to the token that came. Reads rows of logits; runs no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Positions:
    """One text's positions, a list entry each. log_p: of the token that came, under either model.

    in_call: the token lies inside a tool call, its tags included.
    """

    kld: tuple[float, ...]
    log_p_reference: tuple[float, ...]
    log_p_candidate: tuple[float, ...]
    same_top: tuple[bool, ...]
    in_call: tuple[bool, ...]

    def calls_only(self) -> Positions:
        """The positions inside calls."""
        keep = [i for i, inside in enumerate(self.in_call) if inside]
        columns = (self.kld, self.log_p_reference, self.log_p_candidate, self.same_top, self.in_call)
        return Positions(*(tuple(column[i] for i in keep) for column in columns))  # type: ignore[arg-type]


def compare_texts(
    reference: Iterable[NDArray[np.float32]],
    candidate: Iterable[NDArray[np.float32]],
    targets: Sequence[int],
    in_call: Sequence[bool],
) -> Positions:
    """Reads both models' rows in step. targets: the token that came after each row."""
    kld, log_p, log_q, same = [], [], [], []
    for (row, other), target in zip(_paired_rows(reference, candidate), targets, strict=True):
        divergence, p, q, agree = compare_rows(row, other, target)
        kld.append(divergence)
        log_p.append(p)
        log_q.append(q)
        same.append(agree)
    return Positions(tuple(kld), tuple(log_p), tuple(log_q), tuple(same), tuple(in_call))


def _paired_rows(
    reference: Iterable[NDArray[np.float32]], candidate: Iterable[NDArray[np.float32]]
) -> Iterator[tuple[Row, Row]]:
    """Row by row whatever sizes the chunks have. The views die with their chunk, so nothing is kept."""
    rows = (row for chunk in reference for row in chunk)
    others = (row for chunk in candidate for row in chunk)
    return zip(rows, others, strict=True)


def compare_rows(reference: Row, candidate: Row, target: int) -> tuple[float, float, float, bool]:
    """KL(reference || candidate) in nats, log p of the target under each, and whether both favour the same token.

    One row at a time: 0.2 to 1 MB stay in the processor's cache, and nothing the size of a chunk is made.
    """
    top, other_top = int(reference.argmax()), int(candidate.argmax())
    p = np.exp(reference - reference[top])
    p_sum = float(p.sum(dtype=np.float64))
    log_z = float(reference[top]) + math.log(p_sum)
    q = np.exp(candidate - candidate[other_top])
    other_log_z = float(candidate[other_top]) + math.log(float(q.sum(dtype=np.float64)))
    # Measured from the difference at the top token, where the mass is: the sum stays small and float32 exact enough.
    differences = np.subtract(reference, candidate, out=q)
    offset = float(differences[top])
    differences -= np.float32(offset)
    kld = float(np.dot(p, differences)) / p_sum + offset - (log_z - other_log_z)
    return (
        max(kld, 0.0),
        float(reference[target]) - log_z,
        float(candidate[target]) - other_log_z,
        top == other_top,
    )


@dataclass(frozen=True, slots=True)
class DistanceSummary:
    """Over positions of many texts. max_dp: largest change of a came token's probability, either way."""

    n_tokens: int
    kld_mean: float
    kld_median: float
    kld_p99: float
    kld_max: float
    same_top: float
    ppl_reference: float
    ppl_candidate: float
    ppl_ratio: float
    max_dp: float

    @property
    def is_identical(self) -> bool:
        """Whether not one probability differed."""
        return self.kld_max == 0.0 and self.same_top == 1.0 and self.max_dp == 0.0


def summarize_positions(texts: Sequence[Positions]) -> DistanceSummary | None:
    """The figures over all positions together; None without any."""
    kld = np.array([x for text in texts for x in text.kld])
    if not len(kld):
        return None
    log_p = np.array([x for text in texts for x in text.log_p_reference])
    log_q = np.array([x for text in texts for x in text.log_p_candidate])
    same = np.array([x for text in texts for x in text.same_top])
    return DistanceSummary(
        n_tokens=len(kld),
        kld_mean=float(kld.mean()),
        kld_median=float(np.median(kld)),
        kld_p99=float(np.quantile(kld, 0.99)),
        kld_max=float(kld.max()),
        same_top=float(same.mean()),
        ppl_reference=math.exp(-log_p.mean()),
        ppl_candidate=math.exp(-log_q.mean()),
        ppl_ratio=math.exp(float((log_p - log_q).mean())),
        max_dp=float(np.abs(np.exp(log_p) - np.exp(log_q)).max()),
    )
