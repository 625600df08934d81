"""A handle on one answer that is being made: its events, and the way to give it up. Decodes nothing itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TypeAlias

from edge.errors import DeadlineExceeded, EdgeError, RequestCancelled
from edge.types import Event, Reply

logger = logging.getLogger("edge.engine")

# What a caller's own `on_event` is given: events, and in place of the reply an error.
OnEvent: TypeAlias = Callable[[Event | EdgeError], None]


class Running:
    """What `Engine.submit` returns. `events` is iterated once; `cancel` may come from any thread at any time."""

    def __init__(
        self,
        *,
        deadline_s: float | None = None,
        on_event: OnEvent | None = None,
        on_cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self.submitted_at = time.perf_counter()
        self._deadline_s = deadline_s
        self._queue: SimpleQueue[Event | EdgeError] = SimpleQueue()
        self._deliver = on_event or self._queue.put
        self._on_cancel = on_cancel
        self._is_cancelled = self._is_over = False

    def events(self) -> EventStream:
        """The answer as it is made; the last event is the `Reply`. Closing the iterator gives the answer up.

        Raises EdgeError where the answer fails, RequestCancelled where it was given up by somebody else.
        Not for use beside `on_event`.
        """
        return EventStream(self, self._queue)

    def cancel(self) -> None:
        """Gives the answer up; its sequence is free before the next token is decoded. No effect on a finished one."""
        if not self._is_over:
            self._is_cancelled = True
            self._on_cancel()

    @property
    def deadline(self) -> float | None:
        """When it is given up, by `time.perf_counter`; None for never."""
        return None if self._deadline_s is None else self.submitted_at + self._deadline_s

    def why_stopped(self) -> RequestCancelled | None:
        """Why the answer is not to be continued; None while it is."""
        if self._is_cancelled:
            return RequestCancelled("the answer was cancelled")
        if self._deadline_s is not None and time.perf_counter() >= self.submitted_at + self._deadline_s:
            return DeadlineExceeded(self._deadline_s)
        return None

    def put(self, event: Event | EdgeError) -> None:
        """Hands an event to the caller; for the engine's thread."""
        self._is_over = self._is_over or isinstance(event, Reply | EdgeError)
        try:
            self._deliver(event)
        except Exception:
            # The caller's own function; the others' answers must not end with it.
            logger.exception("on_event failed")
            self.cancel()


class EventStream(Iterator[Event]):
    """The events of one answer. Closing it, or dropping it, gives the answer up: unlike a generator, also unstarted."""

    def __init__(self, running: Running, queue: SimpleQueue[Event | EdgeError]) -> None:
        self._running, self._queue = running, queue
        self._is_over = False

    def __next__(self) -> Event:
        if self._is_over:
            raise StopIteration
        event = self._queue.get()
        self._is_over = isinstance(event, Reply | EdgeError)
        if isinstance(event, EdgeError):
            try:
                raise event
            finally:
                del event  # its traceback holds this frame: one would keep the other
        return event

    def close(self) -> None:
        """Gives the answer up, if it is not finished. Safe to call twice."""
        self._is_over = True
        self._running.cancel()

    def __del__(self) -> None:
        self.close()
