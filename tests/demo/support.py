"""Reading what was composed, written apart from the code that composed it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).parents[2]
EVAL = REPO / "demo" / "eval"
_N_WORDS = 4
_N_SHARED = 5  # runs; "What's the weather like in ...?" is nobody's own


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text.casefold()))


def runs_of_words(text: str) -> set[tuple[str, ...]]:
    """Every four words that stand in a row."""
    found = words(text)
    return {found[i : i + _N_WORDS] for i in range(len(found) - _N_WORDS + 1)}


def user_texts(dialog: dict) -> list[str]:
    return [m["content"] for m in dialog["messages"] if m["role"] == "user" and m.get("content")]


def calls(dialog: dict, *, trained_only: bool = True) -> Iterator[dict]:
    for message in dialog["messages"]:
        if trained_only and message.get("train") is False:
            continue
        yield from (call["function"] for call in message.get("tool_calls", ()))


def borrowed(texts: set[str], held: set[str]) -> list[tuple[str, str]]:
    """Pairs of a text and a held one of at least four words that are equal but for punctuation and case, or of which
    the text has nearly all runs of four words."""
    equal = {words(text): text for text in held if len(words(text)) >= _N_WORDS}
    owners: dict[tuple[str, ...], set[str]] = {}
    for text in held:
        for run in runs_of_words(text):
            owners.setdefault(run, set()).add(text)
    n_runs = {text: len(runs_of_words(text)) for text in held}
    found = []
    for text in texts:
        if (same := equal.get(words(text))) is not None:
            found.append((text, same))
            continue
        shared: dict[str, int] = {}
        for run in runs_of_words(text):
            for owner in owners.get(run, ()):
                shared[owner] = shared.get(owner, 0) + 1
        found += [(text, owner) for owner, n in shared.items() if n >= _N_SHARED and n >= 0.7 * n_runs[owner]]
    return found
