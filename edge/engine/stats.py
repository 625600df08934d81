"""What the engine counts: totals since it was made, and a picture of one moment for others to read."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edge.errors import EdgeError, RequestCancelled
from edge.types import Reply

if TYPE_CHECKING:
    from edge.engine.answer import Answer


@dataclass(slots=True, kw_only=True)
class Totals:
    """Counts that only grow. For the engine's thread, or under its lock."""

    requests: int = 0  # that were taken in
    refused: int = 0  # because the queue was full
    finished: int = 0  # with a reply
    cancelled: int = 0  # by the caller, a deadline or a closing engine
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    forced_tokens: int = 0
    calls: int = 0
    withdrawn_calls: int = 0
    grammar_refusals: int = 0  # tokens that the model chose and the grammar did not allow
    answer_s: float = 0.0  # of all finished answers together, without their time in the queue

    @property
    def mean_answer_s(self) -> float:
        """How long a finished answer was at work, on average."""
        return self.answer_s / self.finished if self.finished else 0.0

    def note(self, answer: Answer, how: Reply | EdgeError) -> None:
        """Counts an answer that is over."""
        self.grammar_refusals += answer.generation.n_refused
        self.withdrawn_calls += answer.n_withdrawn
        if isinstance(how, RequestCancelled):
            self.cancelled += 1
        elif isinstance(how, EdgeError):
            self.failed += 1
        else:
            self.finished += 1
            self.answer_s += time.perf_counter() - answer.generation.started_at
            self.prompt_tokens += how.usage.prompt_tokens
            self.cached_tokens += how.usage.cached_tokens
            self.completion_tokens += how.usage.completion_tokens
            self.forced_tokens += how.usage.forced_tokens
            self.calls += len(how.tool_calls)

    def picture(self, *, running: int, n_parallel: int, step_s: float, **now: int) -> EngineStats:
        """The totals beside what is going on now."""
        free = n_parallel - running
        return EngineStats(
            **asdict(self),
            running=running,
            n_parallel=n_parallel,
            n_sequences_free=free,
            step_s=step_s,
            **now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What the engine is doing, and what it has done since it was made."""

    running: int = 0
    queued: int = 0
    n_parallel: int = 1
    n_sequences_free: int = 1
    max_queue: int = 0
    requests: int = 0
    refused: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    forced_tokens: int = 0
    calls: int = 0
    withdrawn_calls: int = 0
    grammar_refusals: int = 0
    answer_s: float = 0.0
    state_cache_hits: int = 0  # prompts that began with a state from disk
    state_cache_misses: int = 0  # prompts whose system text and tools were neither at hand nor on disk
    state_cache_bytes: int = 0  # of all states on disk, as of the last one written
    snapshot_bytes: int = 0  # of recurrent states in memory
    step_s: float = 0.0  # since the step under way began; 0 when there is nothing to do
