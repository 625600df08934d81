"""What a training run is told."""

from __future__ import annotations

from dataclasses import dataclass


class TrainError(Exception):
    """A run that cannot begin; the message says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A run. text_weight: of a token of plain text, against 1 for a token of a call.

    continues: a run whose weights and optimizer this one takes over, on other examples and with a schedule of its own;
    or an adapter's folder, whose weights alone there are.
    validation: examples to measure the loss on, composed of other material; else the first packs of `examples`, which
    are then not trained on but share their written sentences with those that are.
    first_layer: the layers below it stay as they are, which saves their part of the backward pass.
    """

    base: str
    examples: str
    out: str
    minutes: float
    processes: int
    packs_a_step: int = 4
    learning_rate: float = 1.2e-3
    warmup_steps: int = 25
    rank: int = 20
    alpha: int = 40
    first_layer: int = 6
    max_tokens: int = 1500
    text_weight: float = 0.5
    continues: str = ""
    validation: str = ""
    seed: int = 7
