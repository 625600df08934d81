"""The report's plots as inline SVG. Positions across are percentages and text has a fixed size, so that a plot fits a
phone and a desktop alike without scaling. Colours come from the page's style sheet: `s0`, `s1`, ... are the variants.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_LEFT, _WIDTH = 3.0, 94.0  # percent
_ROW, _LABEL = 13, 22  # pixels


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its 95 % interval. series: the variant's number."""

    series: int
    value: float
    interval: tuple[float, float] | None
    title: str


def scenario_plot(rows: Sequence[tuple[str, Sequence[Dot]]]) -> str:
    """F1 of every variant in each scenario, 0 to 1."""
    parts, y = [], 4
    for label, dots in rows:
        parts.append(f'<text x="{_LEFT}%" y="{y + 13}" class="label">{escape(label)}</text>')
        y += _LABEL
        for dot in dots:
            parts.append(_whisker(dot, y))
            y += _ROW
        y += 8
    grid = "".join(_grid_line(tick, y) for tick in (0, 0.25, 0.5, 0.75, 1))
    return _svg(grid + "".join(parts), y + 20, "F1 by scenario with 95 % intervals")


def _grid_line(tick: float, bottom: int) -> str:
    x = _x(tick)
    anchor = "start" if tick == 0 else "end" if tick == 1 else "middle"
    return (
        f'<line x1="{x}%" x2="{x}%" y1="0" y2="{bottom}" class="grid"/>'
        f'<text x="{x}%" y="{bottom + 14}" class="tick" text-anchor="{anchor}">{tick:g}</text>'
    )


def _whisker(dot: Dot, y: int) -> str:
    low, high = dot.interval or (dot.value, dot.value)
    return (
        f'<g class="s{dot.series}"><title>{escape(dot.title)}</title>'
        f'<line x1="{_x(low)}%" x2="{_x(high)}%" y1="{y}" y2="{y}" class="whisker"/>'
        f'<circle cx="{_x(dot.value)}%" cy="{y}" r="5"/></g>'
    )


def _x(share: float) -> float:
    return round(_LEFT + _WIDTH * min(max(share, 0.0), 1.0), 3)


def divergence_histogram(values: Sequence[float], series: int, decades: tuple[int, int]) -> str:
    """How many tokens have which KL divergence, on a logarithmic axis; smaller ones are in the first bar."""
    low, high = decades
    n_bins = (high - low) * 5
    logs = np.clip(np.log10(np.maximum(values, 1e-300)), low, high - 1e-9)
    counts, _ = np.histogram(logs, bins=n_bins, range=(low, high))
    height, top = 110, max(1, int(counts.max()))
    bars = []
    for i, count in enumerate(counts):
        if count:
            tall = max(1.0, height * count / top)
            x, wide = _LEFT + _WIDTH * i / n_bins, _WIDTH / n_bins
            bars.append(
                f'<rect x="{x:.3f}%" width="{wide * 0.9:.3f}%" y="{height + 6 - tall:.1f}" height="{tall:.1f}">'
                f"<title>{count} tokens from {_power(low + i / 5)}</title></rect>"
            )
    ticks = "".join(_decade(decade, low, high, height + 6) for decade in range(low, high + 1))
    return _svg(f'{ticks}<g class="s{series}">{"".join(bars)}</g>', height + 26, "histogram of KL divergence")


def _power(exponent: float) -> str:
    return f"{10**exponent:.1e}"


def _decade(decade: int, low: int, high: int, bottom: int) -> str:
    x = round(_LEFT + _WIDTH * (decade - low) / (high - low), 3)
    anchor = "start" if decade == low else "end" if decade == high else "middle"
    label = "1" if decade == 0 else f"1e{decade}"
    return (
        f'<line x1="{x}%" x2="{x}%" y1="0" y2="{bottom}" class="grid"/>'
        f'<text x="{x}%" y="{bottom + 15}" class="tick" text-anchor="{anchor}">{label}</text>'
    )


def decades_of(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten that hold these values, 8 at most: what lies below is noise."""
    highest = max([*values, 1e-6])
    high = math.ceil(math.log10(highest) + 1e-9)
    positive = [value for value in values if value > 0]
    low = math.floor(math.log10(float(np.quantile(positive, 0.02)))) if positive else high - 1
    return max(min(low, high - 1), high - 8), high


def trade_off(dots: Sequence[tuple[float, Dot]], unit: str) -> str:
    """Accuracy upwards against size or speed across."""
    height = 190
    most = max((x for x, _ in dots), default=1.0) * 1.08 or 1.0
    bounds = [edge for _, dot in dots for edge in (dot.interval or (dot.value, dot.value))]
    low = math.floor(20 * max(0.0, min(bounds, default=0.0) - 0.02)) / 20
    parts = []
    for tick in _ticks(low, 1.0):
        y = _y(tick, low, height)
        parts.append(f'<line x1="0" x2="100%" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="2" y="{y - 3}" class="tick">{tick:.2f}</text>')
    for tick in _round_ticks(most):
        x = _x(tick / most)
        parts.append(f'<text x="{x}%" y="{height + 28}" class="tick" text-anchor="middle">{tick:g}</text>')
    parts += [_upright(across / most, dot, low, height) for across, dot in dots]
    parts.append(f'<text x="98%" y="{height + 44}" class="tick" text-anchor="end">{escape(unit)}</text>')
    return _svg("".join(parts), height + 50, f"F1 against {unit}")


def _upright(share: float, dot: Dot, low: float, height: int) -> str:
    bottom, top = dot.interval or (dot.value, dot.value)
    x = _x(share)
    return (
        f'<g class="s{dot.series}"><title>{escape(dot.title)}</title>'
        f'<line x1="{x}%" x2="{x}%" y1="{_y(bottom, low, height)}" y2="{_y(top, low, height)}" class="whisker"/>'
        f'<circle cx="{x}%" cy="{_y(dot.value, low, height)}" r="6"/></g>'
    )


def _y(value: float, low: float, height: int) -> float:
    return round(12 + (height - 4) * (1 - (value - low) / (1 - low or 1)), 1)


def _ticks(low: float, high: float) -> Iterator[float]:
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.25) if (high - low) / step <= 5)
    n = math.floor(low / step)
    while n * step <= high + 1e-9:
        if n * step >= low - 1e-9:
            yield round(n * step, 4)
        n += 1


def _round_ticks(most: float) -> list[float]:
    step = 10 ** math.floor(math.log10(most / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 4)
    return [round(i * step, 10) for i in range(1, int(most / step) + 1)]


def _svg(inside: str, height: float, label: str) -> str:
    return (
        f'<svg width="100%" height="{height}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{inside}</svg>'
    )
