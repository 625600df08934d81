"""How a fetch shows on standard error: a bar with rate and time left on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

    from edge.models.download import Transfer

_LINE_EVERY_S = 30.0
_LINE_EVERY_SHARE = 0.1


def tell(line: str) -> None:
    """A line of progress, where data does not go."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def warn(path: object, sentences: Iterable[str]) -> None:
    """What is odd about a model file, a line each."""
    for sentence in sentences:
        tell(f"warning: {path}: {sentence}")


class FetchView(Protocol):
    """What shows a fetch."""

    def tell(self, line: str) -> None:
        """Shows a line."""

    def on_bytes(self, transfer: Transfer) -> None:
        """Shows how far a file has come."""


class LineView:
    """For logs and pipes: a line each tenth of a file, and at least every half minute."""

    def __init__(self) -> None:
        self._began_s = self._told_s = 0.0
        self._told_bytes: int | None = None

    def tell(self, line: str) -> None:
        """Shows a line."""
        tell(line)

    def on_bytes(self, transfer: Transfer) -> None:
        """A line if enough has come since the last one, and at the end."""
        now_s = time.monotonic()
        if self._told_bytes is None:
            self._began_s = self._told_s = now_s
            self._told_bytes = transfer.done_bytes
            if transfer.resumed_bytes:
                tell(f"going on from {_sizes(transfer)}")
            return
        has_news = transfer.done_bytes - self._told_bytes >= _LINE_EVERY_SHARE * transfer.total_bytes
        is_done = transfer.done_bytes == transfer.total_bytes and transfer.done_bytes != self._told_bytes
        if has_news or is_done or now_s - self._told_s >= _LINE_EVERY_S:
            self._told_s, self._told_bytes = now_s, transfer.done_bytes
            tell(_line(transfer, now_s - self._began_s))


def _sizes(transfer: Transfer) -> str:
    from edge.models.files import format_size

    share = int(100 * transfer.done_bytes / transfer.total_bytes)
    return f"{format_size(transfer.done_bytes)} of {format_size(transfer.total_bytes)} ({share} %)"


def _line(transfer: Transfer, seconds: float) -> str:
    rate = max(transfer.done_bytes - transfer.resumed_bytes, 0) / max(seconds, 1e-3)
    left_bytes = transfer.total_bytes - transfer.done_bytes
    if not left_bytes or not rate:
        return _sizes(transfer)
    minutes, rest = divmod(int(left_bytes / rate), 60)
    return f"{_sizes(transfer)}, {rate / 1e6:.1f} MB/s, {minutes}:{rest:02} left"


class BarView:
    """For a terminal: rich's bar; lines are shown above it."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def tell(self, line: str) -> None:
        """Shows a line, above the bar if there is one."""
        if self._bar is None:
            tell(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_bytes(self, transfer: Transfer) -> None:
        """Moves the bar."""
        if self._bar is None:
            self._bar = self._open(transfer)
        self._bar.update(self._bar.task_ids[0], completed=transfer.done_bytes)

    def _open(self, transfer: Transfer) -> Progress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )  # fmt: skip
        bar = Progress(*columns, console=Console(stderr=True))
        bar.add_task(transfer.name, total=transfer.total_bytes, completed=transfer.done_bytes)
        bar.start()
        return bar

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def fetch_view() -> Iterator[FetchView]:
    """The view for where standard error goes."""
    if not sys.stderr.isatty():
        yield LineView()
        return
    view = BarView()
    try:
        yield view
    finally:
        view.close()
