"""Log probabilities of a token and of the likeliest ones beside it, from the model's logits as they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.engine.model import Vocabulary
from edge.types import TokenLogprob


def token_logprob(
    logits: npt.NDArray[np.float32], token_id: int, n_top: int, vocab: Vocabulary
) -> TokenLogprob:
    """The token's log probability and the `n_top` likeliest tokens with theirs, likeliest first."""
    highest = float(logits.max())
    log_sum = highest + float(np.log(np.exp(logits - highest, dtype=np.float64).sum()))
    top: list[int] = []
    if n_top:
        likeliest = np.argpartition(-logits, n_top)[:n_top] if n_top < len(logits) else np.arange(len(logits))
        top = [int(i) for i in likeliest[np.argsort(-logits[likeliest], kind="stable")]]
    alternatives = tuple(TokenLogprob(i, vocab.piece(i), float(logits[i]) - log_sum) for i in top)
    return TokenLogprob(token_id, vocab.piece(token_id), float(logits[token_id]) - log_sum, alternatives)
