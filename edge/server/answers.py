"""From the engine's thread to the event loop: the answers to one HTTP request, and giving them up.

The engine calls back with each event and the event loop is woken; no thread waits for an answer, however many
clients do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol, TypeAlias

from starlette.types import Receive

from edge.engine.request import ChatRequest, CompletionRequest
from edge.engine.running import OnEvent
from edge.engine.stats import EngineStats
from edge.errors import EdgeError
from edge.server.errors import ClientGone
from edge.types import Event, Reply

EngineRequest: TypeAlias = ChatRequest | CompletionRequest


class RunningLike(Protocol):
    """What is needed of an answer that is being made."""

    def cancel(self) -> None:
        """Gives it up; from any thread."""


class EngineLike(Protocol):
    """What the server needs of an engine; `edge.engine.engine.Engine` is one."""

    @property
    def facts(self) -> dict[str, object]:
        """What is loaded."""

    @property
    def n_ctx(self) -> int:
        """Tokens that one sequence holds."""

    def submit(
        self, request: EngineRequest, *, deadline_s: float | None = None, on_event: OnEvent | None = None
    ) -> RunningLike:
        """Takes a request in."""

    def stats(self) -> EngineStats:
        """What is running and waiting, and totals."""

    def tokenize(self, text: str, *, add_bos: bool = False) -> list[int]:
        """Token ids."""

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """Text."""

    def close(self, grace_s: float = 0.0) -> None:
        """Lets running answers finish, then frees everything."""


class Answers:
    """The answers to one HTTP request. Made on the event loop; `submit` may run on another thread.

    wants_pieces: deliver what comes before the replies too. Where nobody is shown it, not waking the event loop for
        each token leaves the time to the engine.
    """

    def __init__(self, *, wants_pieces: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._wants_pieces = wants_pieces
        self._events: asyncio.Queue[tuple[int, Event | EdgeError | ClientGone]] = asyncio.Queue()
        self._runnings: list[RunningLike] = []
        self._is_over = False
        self._watcher: asyncio.Task[None] | None = None

    def watch(self, receive: Receive) -> None:
        """Gives the answers up when the client closes the connection; the request's body must have been read."""
        self._watcher = asyncio.create_task(self._watch(receive))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancel()
        self._events.put_nowait((0, ClientGone()))

    def submit(self, engine: EngineLike, requests: Sequence[EngineRequest], deadline_s: float) -> None:
        """Hands all requests to the engine, or none. Raises EdgeError."""
        try:
            for i, request in enumerate(requests):
                running = engine.submit(request, deadline_s=deadline_s, on_event=partial(self._deliver, i))
                self._runnings.append(running)
                if self._is_over:  # the client hung up meanwhile
                    running.cancel()
        except BaseException:
            self.cancel()
            raise

    def _deliver(self, index: int, event: Event | EdgeError) -> None:
        if self._wants_pieces or isinstance(event, Reply | EdgeError):
            try:
                self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))
            except RuntimeError:  # the loop was closed by a second signal
                self.cancel()

    async def next(self, timeout_s: float) -> tuple[int, Event] | None:
        """The next event with the number of its answer; None when nothing came for so long.

        Raises the EdgeError that an answer ended with, and ClientGone.
        """
        try:
            async with asyncio.timeout(timeout_s):
                index, event = await self._events.get()
        except TimeoutError:
            return None
        if isinstance(event, EdgeError | ClientGone):
            try:
                raise event
            finally:
                del event  # its traceback holds this frame: one would keep the other
        return index, event

    def cancel(self) -> None:
        """Gives up what is not finished. From any thread, as often as one likes."""
        self._is_over = True
        for running in list(self._runnings):
            running.cancel()

    def close(self) -> None:
        """The same, stops watching the client, and lets go of what refers back to this object.

        What is left in a cycle waits for Python's collector, which may be thousands of requests away.
        """
        self.cancel()
        self._runnings = []
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
