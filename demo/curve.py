"""The loss of a training run over its tokens, as an SVG file.

    python -m demo.curve RUN_DIR OUT.svg

Reads RUN_DIR/log.jsonl. Pale: each step. Line: their running mean. Dots: the loss on dialogues that are not trained on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 14, 44
_MEMORY = 0.95  # of the running mean, per step
_STYLE = (
    "text{font:12px sans-serif;fill:#555}line{stroke:#ddd}polyline{fill:none;stroke:#2a6fb0;stroke-width:2}"
    ".step{stroke:#2a6fb0;stroke-width:1;opacity:.25}circle{fill:#c2410c}"
)
_KEYS = ("step", "tokens", "loss", "validation_loss")
Point = tuple[float, float]


class CurveError(Exception):
    """A log that cannot be drawn; the message says why."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of tokens seen and loss."""

    steps: tuple[Point, ...]
    validation: tuple[Point, ...]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.curve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("out", type=Path, metavar="OUT.svg")
    args = parser.parse_args(argv)
    try:
        text = svg(read_curve(args.run / "log.jsonl"))
        args.out.write_text(text, encoding="utf-8")
    except (CurveError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


def read_curve(log: Path) -> Curve:
    """Raises CurveError for a line that is no record, and where fewer than two steps are logged."""
    records = [_record(log, number, line) for number, line in enumerate(_lines(log), 1)]
    # A run that went on from a checkpoint logged the steps after it twice: the last time counts.
    steps = {r["step"]: (r["tokens"], r["loss"]) for r in records if "loss" in r}
    validation = {r["step"]: (r["tokens"], r["validation_loss"]) for r in records if "validation_loss" in r}
    if len(steps) < 2:
        raise CurveError(f"{log} holds {len(steps)} steps; two are needed for a curve")
    return Curve(
        tuple(steps[step] for step in sorted(steps)), tuple(validation[s] for s in sorted(validation))
    )


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]


def _record(log: Path, number: int, line: str) -> dict[str, float]:
    try:
        record = json.loads(line)
        return {key: float(record[key]) for key in _KEYS if key in record}
    except (ValueError, TypeError) as exc:
        raise CurveError(f"{log}, line {number}: not a record of a step: {line[:60]!r}") from exc


def svg(curve: Curve) -> str:
    """The whole file. The losses' axis is logarithmic: most of the fall is in the first steps."""
    losses = [loss for _, loss in (*curve.steps, *curve.validation)]
    frame = _Frame(max(tokens for tokens, _ in curve.steps), min(losses), max(losses))
    dots = (f'<circle cx="{x}" cy="{y}" r="3.5"/>' for x, y in map(frame.place, curve.validation))
    body = [
        *frame.grid(),
        f'<polyline class="step" points="{frame.points(curve.steps)}"/>',
        f'<polyline points="{frame.points(smoothed(curve.steps))}"/>',
        *dots,
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">tokens seen; line: training loss, dots: validation loss</text>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="loss over tokens"><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Running mean of the losses; the first steps weigh as the mean of those so far."""
    mean, weight, found = 0.0, 0.0, []
    for tokens, loss in points:
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        weight = _MEMORY * weight + (1 - _MEMORY)
        found.append((tokens, mean / weight))
    return found


class _Frame:
    """The axes. Losses at or below zero, which no run has, sit at the bottom."""

    def __init__(self, most_tokens: float, lowest: float, highest: float) -> None:
        self._most_tokens = most_tokens or 1.0
        self._low = math.log(max(lowest, 1e-3)) - 0.05
        self._high = max(math.log(max(highest, 1e-3)) + 0.05, self._low + 0.1)

    def place(self, point: Point) -> tuple[float, float]:
        """Pixels from the left and from the top."""
        tokens, loss = point
        across = tokens / self._most_tokens
        up = (math.log(max(loss, 1e-3)) - self._low) / (self._high - self._low)
        x = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
        return round(x, 1), round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1)

    def points(self, points: Sequence[Point]) -> str:
        return " ".join(f"{x},{y}" for x, y in map(self.place, points))

    def grid(self) -> list[str]:
        return [*self._loss_lines(), *self._token_labels()]

    def _loss_lines(self) -> list[str]:
        lines = []
        for loss in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10):
            if self._low <= math.log(loss) <= self._high:
                _, y = self.place((0, loss))
                lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
                lines.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{loss:g}</text>')
        return lines

    def _token_labels(self) -> list[str]:
        labels = []
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            x, _ = self.place((share * self._most_tokens, 1.0))
            anchor = "start" if share == 0 else "end" if share == 1 else "middle"
            text = f"{share * self._most_tokens:,.0f}"
            labels.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="{anchor}">{text}</text>')
        return labels


if __name__ == "__main__":
    sys.exit(main())
