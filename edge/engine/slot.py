"""One sequence of a context: the tokens whose state it holds, and what can be kept, copied and gone back to.

Named as llama-server names it. An attention model can drop the end of a sequence; a hybrid model cannot, because its
recurrent layers hold one state and no history: there one goes back to a `Checkpoint` or begins anew.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from edge.engine.native import llama
from edge.errors import ContextError, EngineError

if TYPE_CHECKING:
    from edge.engine.context import Context

StateBytes: TypeAlias = "ctypes.Array[ctypes.c_uint8]"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place in a sequence that can be gone back to. state: of the recurrent layers, where there are any."""

    n_tokens: int
    state: StateBytes | None


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens to append to a slot in one step, and whether the logits of the last one are wanted."""

    slot: Slot
    tokens: Sequence[int]
    wants_logits: bool = True


class Slot:
    """Belongs to a context; made by it."""

    def __init__(self, context: Context, seq_id: int) -> None:
        self.context, self.seq_id = context, seq_id
        self.model, self.plan, self.pointer = context.model, context.plan, context.pointer
        self.tokens: list[int] = []  # what the sequence holds, in order
        self.i_output = -1  # where in the last step the logits of its last token are
        self.last_used = 0  # a count, for telling which slot was used longest ago

    def decode(self, tokens: Sequence[int]) -> None:
        """Appends tokens in steps of their own; the logits of the last one can be read after.

        Raises EngineError when llama.cpp refuses, ContextError when n_ctx would be exceeded.
        """
        self.check_room(len(tokens))
        n_batch = self.plan.n_batch
        for start in range(0, len(tokens), n_batch):
            chunk = tokens[start : start + n_batch]
            self.context.decode([Run(self, chunk, wants_logits=start + len(chunk) == len(tokens))])

    def check_room(self, n_more: int) -> None:
        """Raises ContextError when so many more tokens do not fit."""
        if len(self.tokens) + n_more > self.plan.n_ctx:
            raise ContextError(f"{len(self.tokens) + n_more} tokens do not fit n_ctx={self.plan.n_ctx}")

    def clear(self) -> None:
        """Empties the sequence."""
        llama().llama_memory_seq_rm(self.context.memory, self.seq_id, -1, -1)
        self.tokens.clear()

    def cut(self, n_tokens: int) -> bool:
        """Drops all but the first tokens. False where the model cannot; everything is then as it was."""
        if n_tokens >= len(self.tokens):
            return True
        if not llama().llama_memory_seq_rm(self.context.memory, self.seq_id, n_tokens, -1):
            return False
        del self.tokens[n_tokens:]
        return True

    def copy_from(self, other: Slot) -> None:
        """Takes over the other's sequence. Copies no keys and values: the two share them."""
        self.clear()
        llama().llama_memory_seq_cp(self.context.memory, other.seq_id, self.seq_id, -1, -1)
        self.tokens = other.tokens.copy()

    def checkpoint(self) -> Checkpoint:
        """The present end of the sequence. Costs a copy of the recurrent state: 50 MiB on a 4B hybrid."""
        if not self.model.is_hybrid:
            return Checkpoint(len(self.tokens), None)
        return Checkpoint(len(self.tokens), self._state(llama().LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY))

    def go_back(self, checkpoint: Checkpoint) -> None:
        """Makes the checkpoint the end of the sequence again, which must go on from it. Empties it if that fails."""
        if checkpoint.state is not None:
            # The recurrent state first: with it the attention layers' tail can be dropped.
            flags = llama().LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
            state = checkpoint.state
            n_read = llama().llama_state_seq_set_data_ext(self.pointer, state, len(state), self.seq_id, flags)
            if n_read != len(state):
                self.clear()
                return
        if not self.cut(checkpoint.n_tokens):
            self.clear()

    def rewind(self, checkpoint: Checkpoint, tokens: Sequence[int]) -> Sequence[int]:
        """Goes back so that `tokens`, which go on from the checkpoint, can be made the sequence; those to decode."""
        if checkpoint.state is None:
            self.cut(min(len(tokens) - 1, len(self.tokens)))  # attention can go back to anywhere
        else:
            self.go_back(checkpoint)
        return tokens[len(self.tokens) :]

    def state(self) -> StateBytes:
        """The whole sequence's state, as `set_state` takes it. 50 MiB and 32 KiB a token on a 4B hybrid."""
        return self._state(0)

    def set_state(self, state: StateBytes, tokens: Sequence[int]) -> bool:
        """Makes a sequence of a state that `state` gave; False where llama.cpp does not take it: it is then empty."""
        self.clear()
        n_read = llama().llama_state_seq_set_data_ext(self.pointer, state, len(state), self.seq_id, 0)
        n_there = int(llama().llama_memory_seq_pos_max(self.context.memory, self.seq_id)) + 1
        if n_read != len(state) or n_there != len(tokens):
            self.clear()
            return False
        self.tokens = list(tokens)
        return True

    def _state(self, flags: int) -> StateBytes:
        lib = llama()
        n_bytes = lib.llama_state_seq_get_size_ext(self.pointer, self.seq_id, flags)
        state: StateBytes = (ctypes.c_uint8 * n_bytes)()
        if lib.llama_state_seq_get_data_ext(self.pointer, state, n_bytes, self.seq_id, flags) != n_bytes:
            raise EngineError("the state of a sequence could not be copied")
        return state


T = TypeVar("T", list[int], str)


def n_common(held: T, wanted: T) -> int:
    """Length of the longest common beginning. Compares slices: a thousand tokens take microseconds."""
    low, high = 0, min(len(held), len(wanted))
    if held[:high] == wanted[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if held[low:middle] == wanted[low:middle]:
            low = middle
        else:
            high = middle
    return low
