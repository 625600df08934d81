"""How good a ranking is: NDCG, recall, reciprocal rank. Relevance is yes or no."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def ndcg(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Gain of the first k, each divided by the logarithm of its place, against the best there could be; 0 to 1."""
    gain = sum(1 / math.log2(place + 2) for place, found in enumerate(ranking[:k]) if found in relevant)
    best = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
    return gain / best


def recall(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """The share of what is relevant that is among the first k."""
    return len(set(ranking[:k]) & set(relevant)) / len(set(relevant))


def reciprocal_rank(ranking: Sequence[str], relevant: Collection[str]) -> float:
    """1 through the place of the first relevant one; 0 where there is none."""
    return next((1 / place for place, found in enumerate(ranking, 1) if found in relevant), 0.0)
