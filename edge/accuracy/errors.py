"""The errors of a check, below `EdgeError`.

EdgeError
└── CheckError            a comparison that cannot be made as asked
    ├── CasesError        evaluation cases that are none
    ├── NotSiblings       files that are not the same model in different quantizations
    └── EndpointError     a server that does not answer as OpenAI's API says
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge.errors import EdgeError

_SHOWN_LINES = 5


class CheckError(EdgeError):
    """The comparison cannot be made; the message says what would make it possible."""


class CasesError(CheckError):
    """The file holds lines that are not evaluation cases. faults: (line number, what is wrong)."""

    def __init__(self, path: Path, faults: Sequence[tuple[int, str]]) -> None:
        shown = "; ".join(f"line {line}: {fault}" for line, fault in faults[:_SHOWN_LINES])
        more = f"; and {len(faults) - _SHOWN_LINES} more lines" if len(faults) > _SHOWN_LINES else ""
        super().__init__(f"{path}: {shown}{more}")
        self.path, self.faults = path, tuple(faults)


class NotSiblings(CheckError):
    """Two files do not hold the same model. reasons: what differs."""

    def __init__(self, reference: str, candidate: str, reasons: Sequence[str]) -> None:
        super().__init__(
            f"{candidate} is not {reference} in another quantization: {'; '.join(reasons)}; "
            "--force-compare compares them all the same"
        )
        self.reasons = tuple(reasons)


class EndpointError(CheckError):
    """The server is not there, refuses, or answers something else than a chat completion."""
