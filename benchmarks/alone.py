"""Makes an answer on the calling thread, without the engine's scheduler: for measuring the generation by itself."""

from __future__ import annotations

from edge.engine.generation import Decode, Generation
from edge.engine.slot import Slot
from edge.types import Reply


def run_alone(generation: Generation, slot: Slot) -> Reply:
    """The reply of a generation on this slot, each of its steps decoded at once."""
    for step in generation.steps():
        if isinstance(step, Decode):
            slot.decode(step.tokens)
        elif isinstance(step, Reply):
            return step
    raise AssertionError("a generation ends with a Reply")
