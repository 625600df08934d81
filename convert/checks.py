"""One check of a written file, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table: what was compared and how it came out."""

    name: str
    detail: str


class CheckFailed(Exception):
    """A check's reason; `convert.verify` makes it a VerifyError with the file and the check."""
