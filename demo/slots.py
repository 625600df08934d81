"""Filling the slots of a written piece: `{city}` is one value throughout a dialogue, said by the user, meant elsewhere.

{x}       the value of slot x: the user's words in a user's text, the argument's value everywhere else
{x!}      the user's words, anywhere
{x2}      another value of the list of x
{= a*b}   arithmetic over slots      {#10..99}   a random number
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from datetime import date

from simpleeval import InvalidExpression, simple_eval

from demo.pools import MADE, NEED_TODAY, RANGES, Json, Value, listed_pools

SLOT = re.compile(r"\{(=[^{}]+|#-?[\d.]+\.\.-?[\d.]+|[A-Za-z_]\w*!?)\}")
_RANGE = re.compile(r"(-?\d+(?:\.(\d+))?)\.\.(-?\d+(?:\.(\d+))?)")
_NAME = re.compile(r"[A-Za-z_]\w*")
_FUNCTIONS = {"round": round, "min": min, "max": max, "int": int, "abs": abs, "float": float}
_POOLS: dict[str, Json] = dict(listed_pools())
_TRIES = 40


class MaterialError(Exception):
    """A written piece that cannot be used; the message says which and why."""


class Slots:
    """The values of one dialogue, drawn when first asked for."""

    def __init__(self, rng: random.Random, today: date, own: Mapping[str, Json]) -> None:
        self._rng = rng
        self._today = today
        self._lists: dict[str, Json] = {**_POOLS, **RANGES, **own}
        self._own = set(own)
        self._drawn: dict[str, Value] = {}
        self.needs_today = False

    def value(self, name: str) -> Value:
        """Raises MaterialError for a slot that nobody lists."""
        if name not in self._drawn:
            self._drawn[name] = self._draw(name)
        return self._drawn[name]

    def text(self, template: str, *, said: bool) -> str:
        """said: in the user's words."""

        return SLOT.sub(lambda match: self._slot_text(match[1], said), template)

    def _slot_text(self, slot: str, said: bool) -> str:
        if slot.startswith("="):
            return str(self._computed(slot[1:]))
        if slot.startswith("#"):
            return self._draw_range(slot[1:]).said
        value = self.value(slot.rstrip("!"))
        return value.said if said or slot.endswith("!") else _plain(value)

    def argument(self, template: Json) -> Json:
        """An argument with its slots filled; a slot on its own keeps its value's type."""
        if isinstance(template, str):
            alone = SLOT.fullmatch(template)
            if alone and alone[1][0] == "=":
                return self._computed(alone[1][1:])
            if alone and not alone[1].endswith("!") and alone[1][0] != "#":
                return self.value(alone[1]).meant
            return self.text(template, said=False)
        if isinstance(template, Mapping):
            return {str(key): self.argument(entry) for key, entry in template.items()}
        if isinstance(template, Sequence):
            return [self.argument(entry) for entry in template]
        if isinstance(template, date):
            return template.isoformat()
        return template

    def _draw(self, name: str) -> Value:
        base = name if name in self._lists or name in MADE else name.rstrip("0123456789")
        family = base.rstrip("0123456789")
        taken = [_plain(value) for key, value in self._drawn.items() if key.rstrip("0123456789") == family]
        # A list may have fewer values than a text asks for; then one comes twice.
        for _ in range(_TRIES):
            found = self._draw_base(base, name)
            if _plain(found) not in taken:
                break
        if base in NEED_TODAY and base not in self._own:
            self.needs_today = True
        return found

    def _draw_base(self, base: str, name: str) -> Value:
        listed = self._lists.get(base)
        if listed is None:
            if base not in MADE:
                raise MaterialError(f"nobody lists the slot {{{name}}}")
            return MADE[base](self._rng, self._today)
        if isinstance(listed, str):
            return self._draw_range(listed)
        if not isinstance(listed, Sequence) or not listed:
            raise MaterialError(f"the values of {base} must be a list or a range, not {listed!r}")
        return _as_value(self._rng.choice(listed))

    def _draw_range(self, text: str) -> Value:
        match = _RANGE.fullmatch(text)
        if match is None:
            raise MaterialError(f"{text!r} is neither a list of values nor a range such as 2..9")
        digits = max(len(match[2] or ""), len(match[4] or ""))
        if not digits:
            number = self._rng.randint(int(match[1]), int(match[3]))
            return Value(str(number), number)
        drawn = round(self._rng.uniform(float(match[1]), float(match[3])), digits)
        return Value(f"{drawn:.{digits}f}", drawn)

    def _computed(self, expression: str) -> float | int:
        names = {name: self.value(name).meant for name in _NAME.findall(expression) if name not in _FUNCTIONS}
        try:
            found = simple_eval(expression, functions=_FUNCTIONS, names=names)
        except (InvalidExpression, ArithmeticError, SyntaxError, TypeError, ValueError) as exc:
            raise MaterialError(f"{{={expression}}} cannot be computed: {exc}") from exc
        if not isinstance(found, int | float):
            raise MaterialError(f"{{={expression}}} is no number")
        rounded = round(found, 2)
        return int(rounded) if rounded == int(rounded) else rounded


def _as_value(entry: Json) -> Value:
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str | int | float):
        return Value(str(entry[0]), entry[1].isoformat() if isinstance(entry[1], date) else entry[1])
    if isinstance(entry, date):
        return Value(entry.isoformat(), entry.isoformat())
    return Value(str(entry), entry)


def _plain(value: Value) -> str:
    if isinstance(value.meant, str):
        return value.meant
    if isinstance(value.meant, int | float) and not isinstance(value.meant, bool):
        # A price said as 12.50 is written so in an expression, too.
        try:
            return value.said if float(value.said) == value.meant else str(value.meant)
        except ValueError:
            return str(value.meant)
    return json.dumps(value.meant, ensure_ascii=False)
