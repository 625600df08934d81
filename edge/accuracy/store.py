"""Finished items on disk, a line of JSON each, so that an interrupted check goes on where it was.

A stage's file is named after its settings: other files, options or versions never find each other's results. A line
that was cut off by a crash is left out. One process writes at a time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from edge.accuracy.digests import digest_of
from edge.accuracy.errors import CheckError
from edge.accuracy.stages import Record, Stage

_FORMAT = 1  # raised when answers are made or written in another way


class Results:
    """The results of one stage, in memory and in its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self._file: TextIO | None = None
        for key, record in _read(path):
            self.records[key] = record

    def add(self, key: str, record: Record) -> None:
        """Notes a result and puts it on disk before it returns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
            if self._file.tell() and not _ends_with_newline(self.path):
                self._file.write("\n")  # what a crash left half-written must not swallow the next line
        self._file.write(json.dumps([key, record]) + "\n")
        self._file.flush()
        self.records[key] = record

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


@contextmanager
def open_results(folder: Path, stage: Stage) -> Iterator[Results]:
    """The stage's results so far. Raises CheckError for a folder that cannot be written."""
    settings = digest_of([_FORMAT, stage.settings()])
    stem = re.sub(r"[^\w.-]+", "_", stage.name)[:80]
    results = Results(folder / f"{stem}-{settings}.jsonl")
    try:
        yield results
    except OSError as exc:
        raise CheckError(f"the work folder {folder} cannot be written: {exc.strerror or exc}") from exc
    finally:
        results.close()


def _read(path: Path) -> Iterator[tuple[str, Record]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry: Any = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], dict):
                yield str(entry[0]), entry[1]


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
