"""Users' sentences as they come: lower case, slips of the finger, openers. What an argument copies is never touched."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable

_SLOT = re.compile(r"(\{[^{}]+\})")
_WORD = re.compile(r"[a-z]{5,}")
_OPENERS = (
    "Hi, ", "Hello! ", "Hey, ", "ok, ", "Please: ", "Quick one: ", "One more thing: ", "Sorry to bother you. ",
    "Good morning. ", "hey there, ", "Right, ", "So, ", "Morning! ", "Question: ", "Me again. ",
    "If you have a second: ",
)  # fmt: skip
_CLOSERS = (
    " Thanks!",
    " thanks",
    " Thank you.",
    " please",
    " pls",
    " Cheers.",
    " asap",
    " Many thanks in advance.",
    " :)",
    " That's all.",
)


def disturbed(ask: str, copied: Iterable[str], rng: random.Random) -> str:
    """`ask`, a sentence with open slots, sometimes disturbed. copied: texts that the arguments hold literally."""
    is_copied = _quotes(ask) or any(text.lower() in ask.lower() for text in copied if text)
    if not is_copied and rng.random() < 0.13:
        ask = _outside_slots(ask, str.lower)
    if not is_copied and rng.random() < 0.10:
        ask = _with_slip(ask, rng)
    if rng.random() < 0.06 and ask[-1:] in ".?!":
        ask = ask[:-1]
    if rng.random() < 0.10:
        ask = rng.choice(_OPENERS) + ask
    if rng.random() < 0.08:
        ask = ask + ("" if ask[-1:] in ".?!" else ".") * (rng.random() < 0.7) + rng.choice(_CLOSERS)
    return ask


def _quotes(ask: str) -> bool:
    return '"' in ask or "'" in ask.replace("'s", "").replace("n't", "")


def _outside_slots(ask: str, change: Callable[[str], str]) -> str:
    parts = _SLOT.split(ask)
    return "".join(part if part.startswith("{") else change(part) for part in parts)


def _with_slip(ask: str, rng: random.Random) -> str:
    slots = [match.span() for match in _SLOT.finditer(ask)]
    words = [match.span() for match in _WORD.finditer(ask)]
    free = [word for word in words if not any(start <= word[0] < stop for start, stop in slots)]
    if not free:
        return ask
    start, stop = rng.choice(free)
    return ask[:start] + slipped(ask[start:stop], rng) + ask[stop:]


def slipped(word: str, rng: random.Random) -> str:
    """A word with two letters swapped, one doubled or one left out; the first stays."""
    at = rng.randrange(1, max(2, len(word) - 2))
    kind = rng.randrange(3)
    if kind == 0:
        return word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :] if kind == 1 else word[:at] + word[at] + word[at:]
