"""The one object with state: the engine, once it is loaded, and what all requests share."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.types import Receive

from edge.engine.stats import EngineStats
from edge.errors import QueueFull
from edge.server.answers import Answers, EngineLike, EngineRequest
from edge.server.body import BodyBudget
from edge.server.errors import unavailable
from edge.server.metrics import EngineCollector, Metrics
from edge.server.options import DeviceReading, ServerOptions

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger("edge.server")

# Templates, tokens and schemas are worked out on these; more threads would only take turns.
_PLANNERS = 2
_DEVICE_SECONDS = 2.0  # a reading of the device is used again for so long


class Service:
    """What the routes work with. `engine` is set when the model is there; until then requests get a 503."""

    def __init__(
        self,
        options: ServerOptions,
        *,
        engine: EngineLike | None = None,
        device: Callable[[], DeviceReading] = DeviceReading,
    ) -> None:
        self.options = options
        self.is_closing = False
        self.started_at = int(time.time())
        self.bodies = BodyBudget(options.max_body_bytes)
        self.metrics = Metrics()
        self.metrics.registry.register(EngineCollector(self.stats, self.device))
        self._engine = engine
        self._read_device, self._reading, self._read_at = device, DeviceReading(), float("-inf")
        self._planners: CapacityLimiter | None = None
        self._live: set[Answers] = set()

    def install(self, engine: EngineLike) -> None:
        """The model is loaded: requests are answered from now on."""
        self._engine = engine

    @property
    def is_loading(self) -> bool:
        """Whether there is no engine yet."""
        return self._engine is None

    @property
    def engine(self) -> EngineLike:
        """Raises ApiError (503) while there is none, or when it is going."""
        if self.is_closing:
            raise unavailable("the server is shutting down", "shutting_down", 5)
        if self._engine is None:
            raise unavailable("the model is being loaded", "loading", 2)
        return self._engine

    def stats(self) -> EngineStats | None:
        """The engine's counts; None while there is no engine."""
        return self._engine.stats() if self._engine is not None else None

    def device(self) -> DeviceReading:
        """What the device said, at most a few seconds ago. Reads files: not for the event loop."""
        now = time.monotonic()
        if now - self._read_at > _DEVICE_SECONDS:
            try:
                self._reading = self._read_device()
            except (OSError, ValueError) as exc:  # a sensor that comes and goes must not take /health with it
                logger.warning("the device cannot be read: %s", type(exc).__name__)
                self._reading = DeviceReading()
            self._read_at = now
        return self._reading

    def check_queue(self) -> None:
        """Raises QueueFull before any work is done for a request that could not be taken in anyway."""
        stats = self.stats()
        if stats and stats.n_sequences_free == 0 and stats.queued >= stats.max_queue:
            raise QueueFull(stats.queued, stats.max_queue, retry_after_s=1)

    async def answers(
        self, requests: Sequence[EngineRequest], deadline_s: float, receive: Receive, *, wants_pieces: bool
    ) -> Answers:
        """Answers being made; they end with `release`. Raises ApiError or EdgeError, and nothing is left running."""
        engine = self.engine
        self.check_queue()
        answers = Answers(wants_pieces=wants_pieces)
        self._live.add(answers)
        answers.watch(receive)
        try:
            await self.in_thread(answers.submit, engine, requests, deadline_s)
        except BaseException:
            self.release(answers)
            raise
        return answers

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs something that takes milliseconds or more beside the event loop."""
        if self._planners is None:
            self._planners = CapacityLimiter(_PLANNERS)
        return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._planners)

    def release(self, answers: Answers) -> None:
        """Gives up what is not finished and forgets about it."""
        answers.close()
        self._live.discard(answers)

    def give_up_all(self) -> None:
        """Gives up every answer that is being made."""
        for answers in list(self._live):
            answers.cancel()

    async def drain(self, poll_s: float = 0.05) -> None:
        """Returns when the last answer has been handed to its client."""
        while self._live:
            await asyncio.sleep(poll_s)
