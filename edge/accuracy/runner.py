"""Does the items of a stage, here and one after the other. `cluster` does the same on many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edge.accuracy.stages import Item, Record, Stage

# Yields each item with its result as soon as it is done, in any order.
Runner: TypeAlias = Callable[[Stage, Sequence[Item]], Iterator[tuple[Item, Record]]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the check is. fresh: items of this stage that were done now, not found on disk."""

    stage: str
    done: int
    total: int
    overall_done: int
    overall_total: int
    fresh: int


def run_here(stage: Stage, items: Sequence[Item]) -> Iterator[tuple[Item, Record]]:
    """One item after the other in this process, with everything loaded once."""
    with stage.open() as work:
        for item in items:
            yield item, work(item.work)
