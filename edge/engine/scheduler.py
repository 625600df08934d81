"""The thread that owns the llama.cpp context: all answers at work share each step of the model.

A step holds the next token of every answer that is being written, or its next forced run, and beside these a piece of
the prompts that are still to be read, so that a long prompt does not make the others wait for all of it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import TypeAlias

from edge.engine.answer import Answer, Job
from edge.engine.context import Context
from edge.engine.sampling import GrammarCache
from edge.engine.slot import Run, Slot
from edge.engine.slots import Reuse, Slots
from edge.engine.state_cache import StateCache
from edge.engine.stats import EngineStats, Totals
from edge.errors import EdgeError, EngineClosed, EngineError, QueueFull
from edge.types import Reply

logger = logging.getLogger("edge.engine")

OnFinish: TypeAlias = Callable[[Answer, Reply], Reply]


class Scheduler:
    """Makes answers, first come first served. `submit`, `stats` and `close` may be called from any thread.

    on_finish: is given each finished answer on the scheduler's thread; returns the reply that is handed out.
    """

    def __init__(
        self,
        context: Context,
        slots: Slots,
        grammars: GrammarCache,
        *,
        max_queue: int,
        state_cache: StateCache | None = None,
        on_finish: OnFinish = lambda answer, reply: reply,
    ) -> None:
        self._context, self._slots, self._grammars = context, slots, grammars
        self._n_parallel, self._max_queue = context.plan.n_parallel, max_queue
        self._state_cache, self._on_finish = state_cache, on_finish
        self._not_on_disk: set[Job] = set()  # of those that wait
        self._waiting: deque[Job] = deque()
        self._active: list[Answer] = []  # in the order of their admission
        self._changed = Condition()
        self._is_closing = False
        self._totals = Totals()
        self._step_began_s = math.inf  # on the monotonic clock; infinity while there is nothing to do
        self.last_answer: Answer | None = None
        self._thread = Thread(target=self._work, name="edge-engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queues a request. Raises QueueFull or EngineClosed."""
        with self._changed:
            if self._is_closing:
                raise EngineClosed("the engine is closing and takes no more requests")
            n_there = len(self._waiting) + len(self._active)
            if n_there >= self._n_parallel + self._max_queue:
                self._totals.refused += 1
                raise QueueFull(len(self._waiting), self._max_queue, self._retry_after_s())
            self._waiting.append(job)
            self._totals.requests += 1
            self._changed.notify_all()

    def _retry_after_s(self) -> int:
        """When a place in the queue should be free, from how long answers took so far."""
        return max(1, math.ceil(self._totals.mean_answer_s / self._n_parallel))

    def stats(self) -> EngineStats:
        """A picture of this moment."""
        cache = self._state_cache
        with self._changed:
            return self._totals.picture(
                running=len(self._active),
                queued=len(self._waiting),
                n_parallel=self._n_parallel,
                max_queue=self._max_queue,
                state_cache_hits=cache.n_hits if cache else 0,
                state_cache_misses=cache.n_misses if cache else 0,
                state_cache_bytes=cache.n_bytes if cache else 0,
                snapshot_bytes=self._slots.n_snapshot_bytes,
                step_s=max(0.0, time.monotonic() - self._step_began_s),
            )

    def wake(self) -> None:
        """Makes the thread look at what was cancelled."""
        with self._changed:
            self._changed.notify_all()

    def close(self, grace_s: float) -> None:
        """Refuses new requests, lets those at work finish for `grace_s`, gives the others up. Safe to call twice."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._active and not self._waiting, timeout=grace_s)
            for running in [*(job.running for job in self._waiting), *(a.job.running for a in self._active)]:
                running.cancel()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._step_began_s = math.inf
                self._changed.wait_for(lambda: self._waiting or self._active or self._is_closing)
                if self._is_closing and not self._waiting and not self._active:
                    return
                self._step_began_s = time.monotonic()
            try:
                self._drop_stopped()
                self._admit()
                if self._active:
                    self._step()
            except Exception as exc:  # noqa: BLE001 - logged there
                self._fail_all(exc)

    def _fail_all(self, exc: Exception) -> None:
        """A defect of ours must not leave callers waiting for events that never come."""
        logger.exception("a step failed")
        for answer in self._active[:]:
            self._end(answer, EngineError(f"a step failed: {type(exc).__name__}: {exc}"))
            answer.slot.clear()

    def _drop_stopped(self) -> None:
        """Gives up what was cancelled or has run out of time, waiting or at work."""
        for answer in self._active[:]:
            if (why := answer.job.running.why_stopped()) is not None:
                self._end(answer, why)
        for job in list(self._waiting):
            if (why := job.running.why_stopped()) is not None:
                with self._changed:
                    self._waiting.remove(job)
                    self._totals.cancelled += 1
                    self._changed.notify_all()
                self._not_on_disk.discard(job)
                job.running.put(why)

    def _admit(self) -> None:
        """Gives waiting requests a slot, the oldest first; one that will share a prefill under way lets others pass."""
        for job in list(self._waiting):
            if len(self._active) == self._n_parallel:
                return
            reuse = self._reuse(job)
            if reuse is None:
                continue
            self._not_on_disk.discard(job)
            try:
                answer = self._begin(job, self._slots.place(reuse, self._busy()))
            except Exception as exc:
                logger.exception("an answer could not be begun")
                self._leave_queue(job)
                self._totals.failed += 1
                job.running.put(EngineError(f"the answer failed: {type(exc).__name__}: {exc}"))
            else:
                self._leave_queue(job, answer)
                self._advance(answer)

    def _leave_queue(self, job: Job, answer: Answer | None = None) -> None:
        """In one step: at every moment a request counts, for the queue's bound and for who waits for the end."""
        with self._changed:
            self._waiting.remove(job)
            if answer is not None:
                self._active.append(answer)
            self._changed.notify_all()

    def _reuse(self, job: Job) -> Reuse | None:
        """What a job need not compute; None when waiting for another one's prefill is better."""
        if not job.plan.cache_prompt:
            return Reuse(None, 0)
        reuse = self._slots.find(job.prompt)
        if reuse.n_tokens < job.n_block and self._restore(job):
            return self._slots.find(job.prompt)
        return None if self._slots.is_worth_waiting(reuse, self._shared_later(job)) else reuse

    def _restore(self, job: Job) -> bool:
        """Takes the state of a job's system text and tools from disk, if it is there, into a free slot."""
        if self._state_cache is None or job in self._not_on_disk:
            return False
        tokens = job.prompt[: job.n_block]
        state = self._state_cache.load(tokens)
        if state is not None:
            self._slots.make_room(len(tokens), self._busy())
            slot = self._slots.oldest_free(self._busy())
            if slot.set_state(state, tokens):
                self._slots.touch(slot)
                self._slots.snapshot(slot)
                return True
            self._state_cache.reject(tokens)
        self._not_on_disk.add(job)
        return False

    def _shared_later(self, job: Job) -> int:
        prefilling = [(a.job.prompt, a.job.stops) for a in self._active if a.is_prefilling]
        return self._slots.shared_later(job.prompt, prefilling)

    def _busy(self) -> set[Slot]:
        return {answer.slot for answer in self._active}

    def _begin(self, job: Job, slot: Slot) -> Answer:
        plan = job.plan
        if (plan.tools and plan.use_grammar) or plan.text_rules:
            self._grammars.prepare()
        self.last_answer = answer = Answer(job, slot, self._grammars, self._stops(job))
        return answer

    def _stops(self, job: Job) -> tuple[int, ...]:
        """Where the prefill pauses for a state to be kept: on disk, or in memory where the model needs that."""
        if self._context.model.is_hybrid:
            return job.stops
        saves = self._state_cache is not None and self._state_cache.wants(job.prompt[: job.n_block])
        return (job.n_block,) if saves else ()

    def _keep(self, answer: Answer) -> None:
        slot = answer.slot
        self._slots.snapshot(slot)
        cache, is_block = self._state_cache, len(slot.tokens) == answer.job.n_block
        if cache is not None and is_block and cache.wants(slot.tokens):
            cache.save(slot.tokens, slot.state())

    def _advance(self, answer: Answer) -> None:
        """Lets an answer go on to what it wants decoded next."""
        try:
            if answer.advance():
                return
            if answer.reply is None:
                raise EngineError("the generation ended without a reply")
            self._end(answer, answer.reply)
        except EdgeError as exc:
            self._end(answer, exc)
        except Exception as exc:
            logger.exception("an answer failed")
            self._end(answer, EngineError(f"the answer failed: {type(exc).__name__}: {exc}"))

    def _end(self, answer: Answer, how: Reply | EdgeError) -> None:
        answer.close()
        self._slots.touch(answer.slot)
        if isinstance(how, Reply):
            how = self._on_finish(answer, how)
        with self._changed:
            self._active.remove(answer)
            self._totals.note(answer, how)
            self._changed.notify_all()
        answer.job.running.put(how)

    def _step(self) -> None:
        """Decodes one batch and lets go on whoever has logits."""
        work = self._schedule()
        runs = [run for _, run in work]
        self._slots.make_room(sum(len(run.tokens) for run in runs), self._busy())
        try:
            self._context.decode(runs)
        except EngineError as exc:
            for answer, _ in work:
                self._end(answer, exc)
            return
        for answer, run in work:
            if answer.note(run):
                self._keep(answer)
            if run.wants_logits:
                self._advance(answer)

    def _schedule(self) -> list[tuple[Answer, Run]]:
        """Who decodes what in the next step: what is written first, then pieces of prompts."""
        n_left = self._context.plan.n_batch
        work = []
        writing = [answer for answer in self._active if not answer.is_prefilling]
        for answer in writing:
            if n_left == 0:
                break
            run = answer.run(n_left)
            work.append((answer, run))
            n_left -= len(run.tokens)
        n_left = min(n_left, self._context.n_prompt_piece(beside_writing=bool(writing)))
        for answer, n in _shares([a for a in self._active if a.is_prefilling], n_left):
            work.append((answer, answer.run(n)))
        return work


def _shares(answers: list[Answer], n_tokens: int) -> list[tuple[Answer, int]]:
    """Shares a step's tokens among prompts: half to the oldest, the rest to the one that needs least, and so on.

    So the oldest always gets on, and a short prompt need not wait for a long one.
    """
    if not answers or n_tokens <= 0:
        return []
    oldest, *others = answers
    if not others:
        return [(oldest, n_tokens)]
    n_oldest = min(oldest.n_pending, max(1, n_tokens // 2))
    shares, n_left = [], n_tokens - n_oldest
    for answer in sorted(others, key=lambda a: a.n_pending):
        n = min(answer.n_pending, n_left)
        if n:
            shares.append((answer, n))
            n_left -= n
    return [(oldest, n_oldest + n_left), *shares]
