"""An engine without a model: scripted answers, made on a thread of its own, under the real engine's contract."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import Condition, Event, Thread

from edge.engine.request import plan_tools
from edge.engine.running import Running
from edge.engine.stats import EngineStats
from edge.errors import EdgeError, EngineClosed, QueueFull, RequestError
from edge.types import CallOpened, ContentDelta, Reply, Timings, TokenLogprob, ToolCall, Usage

USAGE = Usage(prompt_tokens=12, completion_tokens=5, cached_tokens=7, forced_tokens=2)
TIMINGS = Timings(load_s=1.0, prefill_s=0.2, decode_s=0.1, ttft_s=0.25)


def saying(*pieces, finish_reason="stop", logprobs=()):
    """The events of an answer in text."""
    given = tuple(logprobs)
    text = "".join(pieces)
    reply = Reply(text, "", (), finish_reason, usage=USAGE, timings=TIMINGS, logprobs=given)
    deltas = [ContentDelta(piece, given[i : i + 1]) for i, piece in enumerate(pieces)]
    return [*deltas, reply]


def calling(*calls, content=""):
    """The events of an answer with tool calls, each a name and arguments."""
    made = tuple(ToolCall(f"call_{i}", name, arguments) for i, (name, arguments) in enumerate(calls))
    reply = Reply(content, "", made, "tool_calls", usage=USAGE, timings=TIMINGS)
    events = [ContentDelta(content)] if content else []
    for call in made:
        events += [CallOpened(), call]
    return [*events, reply]


def logprob(text, value=-0.5, top=()):
    return TokenLogprob(1, text.encode(), value, tuple(top))


class FakeEngine:
    """Gives each request the script's events. A script may hold an Event: the answer waits for it.

    script: events, or a function of the request that gives them.
    """

    def __init__(self, script: Iterable | Callable = (), *, n_parallel=1, max_queue=4):
        self.script = script if callable(script) else lambda request: list(script)
        self.requests: list = []
        self.deadlines: list = []
        self.facts = {"path": "/secret/place/model.gguf", "architecture": "llama", "quantization": "Q8_0"}
        self.n_ctx = 2048
        self.changed = Condition()
        self._waiting: deque = deque()
        self._n_taken = 0
        self._closing = False
        self._stats = EngineStats(n_parallel=n_parallel, n_sequences_free=n_parallel, max_queue=max_queue)
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(n_parallel)]
        for thread in self._threads:
            thread.start()

    def submit(self, request, *, deadline_s=None, on_event=None):
        if hasattr(request, "messages"):
            plan_tools(request)  # the checks that need no model
        with self.changed:
            if self._closing:
                raise EngineClosed("closing")
            if self._n_queued() >= self._stats.max_queue and not self._stats.n_sequences_free:
                self._count(refused=1)
                raise QueueFull(self._n_queued(), self._stats.max_queue, retry_after_s=3)
            self.requests.append(request)
            self.deadlines.append(deadline_s)
            running = Running(deadline_s=deadline_s, on_event=on_event, on_cancel=self._wake)
            self._waiting.append((running, request))
            self._count(requests=1)
            if self._stats.n_sequences_free:
                self._count(n_sequences_free=-1, running=1)
            self.changed.notify_all()
        return running

    def stats(self):
        with self.changed:
            return replace(self._stats, queued=self._n_queued())

    def _n_queued(self):
        # A request that was given a sequence lies in the queue until a thread takes it out.
        return len(self._waiting) - (self._stats.running - self._n_taken)

    def tokenize(self, text, *, add_bos=False):
        return [*([0] if add_bos else []), *text.encode("utf-8")]

    def detokenize(self, token_ids):
        if any(token_id > 255 for token_id in token_ids):
            raise RequestError("no such token")
        return bytes(token_ids).decode("utf-8", "replace")

    def close(self, grace_s=0.0):
        with self.changed:
            self._closing = True
            self.changed.wait_for(lambda: not self._stats.running, timeout=grace_s)
            self.changed.notify_all()

    def _wake(self):
        with self.changed:
            self.changed.notify_all()

    def _count(self, **more):
        self._stats = replace(self._stats, **{k: getattr(self._stats, k) + n for k, n in more.items()})

    def _work(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                running, request = self._waiting.popleft()
                self._n_taken += 1
            self._answer(running, request)
            with self.changed:
                self._n_taken -= 1
                if self._n_queued() < 0:  # nobody waits for this sequence
                    self._count(n_sequences_free=1, running=-1)
                self.changed.notify_all()

    def _answer(self, running, request):
        for event in self.script(request):
            while isinstance(event, Event) and not event.wait(0.01):
                if stopped := running.why_stopped():
                    break
            stopped = running.why_stopped()
            if stopped or isinstance(event, EdgeError):
                self._count(**{"cancelled" if stopped else "failed": 1})
                running.put(stopped or event)
                return
            if isinstance(event, float):
                time.sleep(event)
            elif not isinstance(event, Event):
                if isinstance(event, Reply):
                    self._count(
                        finished=1, prompt_tokens=event.usage.prompt_tokens,
                        cached_tokens=event.usage.cached_tokens, calls=len(event.tool_calls),
                    )  # fmt: skip
                running.put(event)
