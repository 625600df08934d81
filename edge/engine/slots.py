"""Which slot a prompt goes to, and what of it need not be computed again.

An attention model reuses the longest common beginning with any slot, busy or not. A hybrid model can only go on from
where a state is at hand: the end of a slot, or a snapshot of its recurrent layers taken on the way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edge.engine.context import Context
from edge.engine.slot import Checkpoint, Slot, n_common

# So many tokens are worth a wait for another answer's prefill, and a slot of their own.
_MIN_SHARED = 32


@dataclass(frozen=True, slots=True)
class Reuse:
    """What a slot holds of a prompt. checkpoint: where to go back to first, in a hybrid model."""

    source: Slot | None
    n_tokens: int
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class _Snapshot:
    tokens: list[int]
    checkpoint: Checkpoint

    @property
    def n_bytes(self) -> int:
        return len(self.checkpoint.state) if self.checkpoint.state is not None else 0


class Slots:
    """All slots of a context with the snapshots that belong to them. `busy` are those that answers are made on."""

    def __init__(self, context: Context, *, snapshot_bytes: int) -> None:
        self._context = context
        self._all = context.slots
        self._is_hybrid = context.model.is_hybrid
        self._snapshot_bytes = snapshot_bytes
        self._snapshots: list[_Snapshot] = []  # the one used longest ago first
        self._n_uses = 0

    def find(self, prompt: list[int]) -> Reuse:
        """The most of a prompt that any slot holds; its last token is left to decode, for its logits."""
        best = Reuse(None, 0)
        for slot in self._all:
            found = self._in_slot(slot, prompt)
            if found.n_tokens > best.n_tokens:
                best = found
        return best

    def _in_slot(self, slot: Slot, prompt: list[int]) -> Reuse:
        n = min(n_common(slot.tokens, prompt), len(prompt) - 1)
        if not self._is_hybrid or n == len(slot.tokens):
            return Reuse(slot, n)
        fitting = [s for s in self._snapshots if len(s.tokens) <= n and s.tokens == prompt[: len(s.tokens)]]
        if not fitting:
            return Reuse(slot, 0)
        longest = max(fitting, key=lambda s: len(s.tokens))
        self._snapshots.remove(longest)
        self._snapshots.append(longest)
        return Reuse(slot, len(longest.tokens), longest.checkpoint)

    def shared_later(self, prompt: list[int], others: Sequence[tuple[list[int], Sequence[int]]]) -> int:
        """How much of a prompt will be there when `others` are prefilled; they are prompts with their stops."""
        best = 0
        for other, stops in others:
            n = min(n_common(other, prompt), len(prompt) - 1)
            best = max(best, max((s for s in stops if s <= n), default=0) if self._is_hybrid else n)
        return best

    def is_worth_waiting(self, now: Reuse, n_later: int) -> bool:
        """Whether to wait for another answer's prefill instead of computing the same beside it."""
        return n_later - now.n_tokens >= _MIN_SHARED

    def place(self, reuse: Reuse, busy: Collection[Slot]) -> Slot:
        """A slot that is not busy, holding what `reuse` found and nothing else. There must be one."""
        source = reuse.source if reuse.n_tokens else None
        target = self._target(source, reuse.n_tokens, busy)
        if source is None:
            target.clear()
        elif target is not source:
            target.copy_from(source)
        if reuse.checkpoint is not None:
            target.go_back(reuse.checkpoint)
        else:
            target.cut(reuse.n_tokens)
        self.touch(target)
        return target

    def _target(self, source: Slot | None, n_tokens: int, busy: Collection[Slot]) -> Slot:
        free = sorted((slot for slot in self._all if slot not in busy), key=lambda slot: slot.last_used)
        if source is not None and source in free and len(source.tokens) - n_tokens < _MIN_SHARED:
            return source
        # A prompt that branches off leaves the rest as it is, unless it is what was used longest ago.
        return next((slot for slot in free if not slot.tokens), free[0])

    def touch(self, slot: Slot) -> None:
        """Makes a slot the one used last."""
        self._n_uses += 1
        slot.last_used = self._n_uses

    def oldest_free(self, busy: Collection[Slot]) -> Slot:
        """The slot that a state from elsewhere may replace."""
        return self._target(None, 0, busy)

    def snapshot(self, slot: Slot) -> None:
        """Keeps the present end of a hybrid model's slot; no effect where any place can be gone back to."""
        if not self._is_hybrid or not slot.tokens:
            return
        held = [s for s in self._snapshots if s.tokens != slot.tokens and self._is_usable(s)]
        held.append(_Snapshot(slot.tokens.copy(), slot.checkpoint()))
        while len(held) > 1 and sum(s.n_bytes for s in held) > self._snapshot_bytes:
            held.pop(0)
        self._snapshots = held

    def _is_usable(self, snapshot: _Snapshot) -> bool:
        n = len(snapshot.tokens)
        return any(slot.tokens[:n] == snapshot.tokens for slot in self._all)

    @property
    def n_snapshot_bytes(self) -> int:
        """Bytes of the snapshots in memory."""
        return sum(s.n_bytes for s in self._snapshots)

    def make_room(self, n_tokens: int, busy: Collection[Slot]) -> None:
        """Empties slots that are not busy, the one used longest ago first, until so many tokens find cells.

        Counts shared cells once for each slot, so that it may empty one too many. Busy slots always fit: none of
        the n_parallel holds more than n_ctx.
        """
        n_held = sum(len(slot.tokens) for slot in self._all)
        if n_held + n_tokens <= self._context.n_cells:
            return
        idle = sorted((slot for slot in self._all if slot not in busy), key=lambda slot: slot.last_used)
        for slot in idle:
            if n_held + n_tokens <= self._context.n_cells:
                return
            n_held -= len(slot.tokens)
            slot.clear()
