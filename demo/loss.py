"""A pack's loss: cross entropy of its targets, what is a call weighing more than what is plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from demo.attention import Ranges, attend
from demo.packs import Branch, Pack

# The first tokens of an answer decide whether it is a call. One token in forty, and everything hangs on the first.
_DECIDING = (4.0, 1.0, 1.0)
# Which tool it is: 6 tokens in 100 of what is learned.
_NAME = 4.0


@dataclass(frozen=True, slots=True)
class Layout:
    """A pack in a row. branches: where each starts and stops in it."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    branches: Ranges


@dataclass(frozen=True, slots=True)
class Targets:
    """before: places in the row whose next token is learned. weights: of those tokens."""

    before: tuple[int, ...]
    weights: tuple[float, ...]


def laid_out(pack: Pack) -> Layout:
    """The beginning, then the branches; the positions of each branch go on from the beginning's end."""
    ids, positions, branches = list(pack.prefix), list(range(len(pack.prefix))), []
    for branch in pack.branches:
        branches.append((len(ids), len(ids) + len(branch.ids)))
        positions += range(len(pack.prefix), len(pack.prefix) + len(branch.ids))
        ids += branch.ids
    return Layout(tuple(ids), tuple(positions), branches)


def targets(pack: Pack, call_ids: Sequence[int], text_weight: float) -> Targets:
    """call_ids: how a call begins. text_weight: of a token of plain text, against 1 for a token of a call."""
    before: list[int] = []
    weights: list[float] = []
    offset = len(pack.prefix)
    for branch in pack.branches:
        for place, weight in _weighted(branch, tuple(call_ids), text_weight):
            before.append(offset + place - 1)
            weights.append(weight)
        offset += len(branch.ids)
    return Targets(tuple(before), tuple(weights))


def _weighted(branch: Branch, call_ids: tuple[int, ...], text_weight: float) -> list[tuple[int, float]]:
    """Each target's place in the branch and its weight."""
    weighted = []
    n_said, is_call = 0, False
    for place, is_target in enumerate(branch.is_target):
        n_said = n_said + 1 if is_target else 0
        if n_said == 1:
            is_call = branch.ids[place : place + len(call_ids)] == call_ids
        if is_target:
            deciding = _DECIDING[n_said - 1] if n_said <= len(_DECIDING) else 0.0
            rest = _NAME if branch.is_name[place] else 1.0 if is_call else text_weight
            weighted.append((place, deciding or rest))
    return weighted


def packed_attention(
    module: object,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    *,
    n_prefix: int,
    branches: Ranges,
    **_others: object,
) -> tuple[torch.Tensor, None]:
    """The form in which transformers calls an attention; a batch is one pack."""
    return attend(query[0], key[0], value[0], n_prefix, branches)[None], None


def pack_loss(
    model: Callable[..., Any], pack: Pack, learned: Targets, device: torch.device
) -> tuple[torch.Tensor, float]:
    """Summed weighted cross entropy of the targets, and the weights' sum.

    The model's attention must be `packed_attention`. On an accelerator it computes in bfloat16, the loss in float32.
    """
    layout = laid_out(pack)
    ids = torch.tensor(layout.ids, device=device)
    before = torch.tensor(learned.before, dtype=torch.long, device=device)
    with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
        logits = model(
            input_ids=ids[None],
            position_ids=torch.tensor(layout.positions, device=device)[None],
            logits_to_keep=before,
            use_cache=False,
            n_prefix=len(pack.prefix),
            branches=layout.branches,
        ).logits[0]  # (targets, vocabulary)
    losses = torch.nn.functional.cross_entropy(logits.float(), ids[before + 1], reduction="none")
    weights = torch.tensor(learned.weights, device=device)
    return (losses * weights).sum(), float(weights.sum())
