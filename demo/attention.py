"""Attention over a pack: the beginning sees itself, each branch sees the beginning and itself.

Plain matrix products over the pairs that exist. A mask over the whole pack would compute three times as many, and at
this model's width attention is as dear as all its weights.
"""

from __future__ import annotations

import torch

_BLOCK = 256
Ranges = list[tuple[int, int]]


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, n_prefix: int, branches: Ranges
) -> torch.Tensor:
    """query (n_head, T, d), key and value (n_head_kv, T, d), scaled by d ** -0.5; returns (T, n_head, d).

    n_prefix: tokens of the beginning. branches: start and stop of each branch in T.
    """
    n_kv, n_tokens, width = key.shape
    grouped = query.view(n_kv, query.shape[0] // n_kv, n_tokens, width) * width**-0.5
    parts = []
    for start in range(0, n_prefix, _BLOCK):
        stop = min(start + _BLOCK, n_prefix)
        parts.append(_rows(grouped[:, :, start:stop], key[:, :stop], value[:, :stop], start))
    for start, stop in branches:
        seen_key = torch.cat((key[:, :n_prefix], key[:, start:stop]), dim=1)
        seen_value = torch.cat((value[:, :n_prefix], value[:, start:stop]), dim=1)
        parts.append(_rows(grouped[:, :, start:stop], seen_key, seen_value, n_prefix))
    return torch.cat(parts, dim=2).permute(2, 0, 1, 3).reshape(n_tokens, query.shape[0], width)


def _rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, n_before: int) -> torch.Tensor:
    """Causal attention of rows that follow n_before keys. query (n_kv, g, t, d), key (n_kv, n_before + t, d)."""
    n_kv, group, n_rows, width = query.shape
    flat = query.reshape(n_kv, group * n_rows, width)
    scores = torch.bmm(flat, key.transpose(1, 2)).view(n_kv, group, n_rows, -1)
    later = torch.ones(n_rows, n_rows, dtype=torch.bool, device=query.device).triu_(1)
    scores[..., n_before:].masked_fill_(later, float("-inf"))
    weights = torch.softmax(scores, dim=-1).view(n_kv, group * n_rows, -1)
    return torch.bmm(weights, value).view(n_kv, group, n_rows, width)
