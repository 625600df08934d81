"""Reads small text files below a root, so that a recorded device tree can stand for a machine.

A file that is missing, unreadable or garbled never raises: the value is unknown, with the reason. Nothing here
knows what the files mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

_MAX_BYTES = 1 << 20  # /proc/cpuinfo of 256 cores has 400 kB


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """A value and where it came from. value None: unknown, and `reason` says why."""

    value: T | None
    source: str
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def map(self, convert: Callable[[T], U | None], problem: str = "") -> Reading[U]:
        """The converted value from the same source; unknown where `convert` gives None or raises ValueError."""
        if self.value is None:
            return Reading(None, self.source, self.reason)
        try:
            value = convert(self.value)
        except (ValueError, IndexError, OverflowError):
            value = None
        if value is None:
            return Reading(None, self.source, problem or f"not understood: {_excerpt(self.value)}")
        return Reading(value, self.source)

    def or_else(self, *others: Reading[T]) -> Reading[T]:
        """The first of these that is known, or this one."""
        return next((r for r in (self, *others) if r.known), self)


def unknown(source: str, reason: str) -> Reading[T]:
    """A value that could not be had."""
    return Reading(None, source, reason)


def _excerpt(value: object) -> str:
    text = ascii(str(value).strip())
    return text if len(text) <= 60 else text[:56] + "...'"


class Tree:
    """Files below `root` by their path without the leading slash (`proc/meminfo`)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def is_this_machine(self) -> bool:
        """Whether the root is the running system's own and not a recording."""
        return self.root == Path("/")

    def text(self, path: str) -> Reading[str]:
        """The file's text without trailing NUL bytes and white space; empty files are unknown."""
        source = f"/{path}"
        try:
            with (self.root / path).open("rb") as file:
                raw = file.read(_MAX_BYTES)
        except (OSError, ValueError) as exc:
            return Reading(None, source, getattr(exc, "strerror", None) or str(exc))
        text = raw.decode("utf-8", "replace").rstrip("\0 \t\r\n")
        return Reading(text, source) if text else Reading(None, source, "the file is empty")

    def number(self, path: str, *, base: int = 10) -> Reading[int]:
        """The file's only number."""
        return self.text(path).map(lambda text: int(text, base))

    def fields(self, path: str) -> Reading[dict[str, str]]:
        """`name: value` or `name value` lines, the first of each name; unknown when there is none."""
        return self.text(path).map(_parse_fields)

    def names(self, path: str, pattern: str) -> list[str]:
        """Entries of a folder whose whole name matches, in natural order; empty if there is no such folder."""
        matches = re.compile(pattern).fullmatch
        try:
            found = [entry.name for entry in (self.root / path).iterdir() if matches(entry.name)]
        except (OSError, ValueError):
            return []
        return sorted(found, key=_natural)

    def exists(self, path: str) -> bool:
        """Whether there is something at the path."""
        try:
            return (self.root / path).exists()
        except (OSError, ValueError):
            return False


def _parse_fields(text: str) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if not separator:
            name, _, value = line.strip().partition(" ")
        if name.strip():
            found.setdefault(name.strip(), value.strip())
    return found or None


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def parse_cpu_list(text: str) -> frozenset[int] | None:
    """The numbers of a kernel list such as `0-3,8`. None for anything else."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip(), re.ASCII)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        numbers.update(range(first, last + 1))
    return frozenset(numbers) or None
