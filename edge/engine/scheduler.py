"""The thread that owns the llama.cpp context: takes requests from a bounded queue and makes their answers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Condition, Thread

from edge.engine.generation import GenerationPlan
from edge.engine.running import OnEvent, Running
from edge.engine.sampling import SamplingOptions
from edge.errors import EdgeError, EngineClosed, EngineError, QueueFull
from edge.types import Event, Reply

logger = logging.getLogger("edge.engine")


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine is doing, and what it has done since it was made."""

    running: int = 0
    queued: int = 0
    n_parallel: int = 1
    n_sequences_free: int = 1
    max_queue: int = 0
    requests: int = 0  # that were taken in
    finished: int = 0  # with a reply
    cancelled: int = 0
    failed: int = 0
    refused: int = 0  # because the queue was full
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    forced_tokens: int = 0
    grammar_refusals: int = 0  # tokens that the model chose and the grammar did not allow
    calls: int = 0
    withdrawn_calls: int = 0
    state_cache_hits: int = 0
    state_cache_misses: int = 0
    state_cache_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """An answer to be made."""

    running: Running
    plan: GenerationPlan
    sampling: SamplingOptions


class Scheduler:
    """Makes answers, first come first served. `submit` and `close` may be called from any thread."""

    def __init__(self, answer: Callable[[Job], Iterator[Event]], *, n_parallel: int, max_queue: int) -> None:
        self._answer = answer
        self._max_queue = max_queue
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._changed = Condition()
        self._is_closing = False
        self._stats = EngineStats(n_parallel=n_parallel, max_queue=max_queue)
        self._thread = Thread(target=self._work, name="edge-engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        plan: GenerationPlan,
        sampling: SamplingOptions,
        deadline_s: float | None,
        on_event: OnEvent | None,
    ) -> Running:
        """Queues a request. Raises QueueFull or EngineClosed."""
        running = Running(deadline_s=deadline_s, on_event=on_event, on_cancel=self._wake)
        with self._changed:
            if self._is_closing:
                raise EngineClosed("the engine is closing and takes no more requests")
            n_waiting = len(self._waiting)
            if n_waiting >= self._max_queue and self._current is not None:
                self._count(refused=1)
                raise QueueFull(n_waiting, self._max_queue, retry_after_s=1)
            self._waiting.append(Job(running, plan, sampling))
            self._count(requests=1)
            self._changed.notify()
        return running

    def stats(self) -> EngineStats:
        """A picture of this moment."""
        with self._changed:
            running = int(self._current is not None)
            return replace(
                self._stats, running=running, queued=len(self._waiting), n_sequences_free=1 - running
            )

    def close(self, grace_s: float) -> None:
        """Refuses new requests, lets those at work finish for `grace_s`, gives the others up. Safe to call twice."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
            self._changed.wait_for(lambda: self._current is None and not self._waiting, timeout=grace_s)
            for job in [*self._waiting, *([self._current] if self._current else [])]:
                job.running.cancel()
            self._changed.notify()
        self._thread.join()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _count(self, **more: int) -> None:
        self._stats = replace(self._stats, **{k: getattr(self._stats, k) + n for k, n in more.items()})

    def _work(self) -> None:
        while True:
            with self._changed:
                self._current = None
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return
                self._current = self._waiting.popleft()
            self._run(self._current)

    def _run(self, job: Job) -> None:
        stopped = job.running.why_stopped()
        try:
            events = self._answer(job)
            while stopped is None and (event := next(events, None)) is not None:
                job.running.put(self._finish(event) if isinstance(event, Reply) else event)
                stopped = job.running.why_stopped() if not isinstance(event, Reply) else None
        except EdgeError as exc:
            self._count(failed=1)
            job.running.put(exc)
        except Exception as exc:
            logger.exception("an answer failed")
            self._count(failed=1)
            job.running.put(EngineError(f"the answer failed: {type(exc).__name__}: {exc}"))
        if stopped is not None:
            self._count(cancelled=1)
            job.running.put(stopped)

    def _finish(self, reply: Reply) -> Reply:
        usage = reply.usage
        self._count(
            finished=1,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            forced_tokens=usage.forced_tokens,
            calls=len(reply.tool_calls),
        )
        return reply
