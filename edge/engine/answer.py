"""One answer at work: its generation, the slot it is made on, and what it wants decoded next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge.engine.generation import Decode, Generation, GenerationPlan
from edge.engine.planning import Conversation
from edge.engine.running import Running
from edge.engine.sampling import GrammarCache, SamplerChain, SamplingOptions
from edge.engine.slot import Run, Slot
from edge.types import CallWithdrawn, Event, PrefillProgress, Reply


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An answer to be made.

    stops: places in the prompt at which a state is worth keeping, ascending. n_block: the first of them, behind the
    system text and the tools; 0 where there is none. conversation: what a next turn may go on from, None for
    a raw prompt.
    """

    running: Running
    plan: GenerationPlan
    sampling: SamplingOptions
    stops: tuple[int, ...] = ()
    n_block: int = 0
    conversation: Conversation | None = None

    @property
    def prompt(self) -> list[int]:
        """The prompt's token ids."""
        return self.plan.prompt


class Answer:
    """Made on a slot that holds a beginning of the prompt. Nobody else may touch the slot until `close`."""

    def __init__(self, job: Job, slot: Slot, grammars: GrammarCache, stops: Sequence[int]) -> None:
        self.job, self.slot = job, slot
        self._stops = [stop for stop in stops if stop > len(slot.tokens)]
        self._chain = SamplerChain(job.sampling, slot.model.vocab, grammars.candidates)
        self.generation = Generation(job.plan, slot, self._chain, grammars)
        self._steps = self.generation.steps()
        self._pending: Sequence[int] = ()
        self.reply: Reply | None = None
        self.n_withdrawn = 0

    @property
    def is_prefilling(self) -> bool:
        """Whether the prompt is not yet in the slot."""
        return len(self.slot.tokens) < len(self.job.prompt)

    @property
    def n_pending(self) -> int:
        """Tokens that wait to be decoded."""
        return len(self._pending)

    def advance(self) -> bool:
        """Hands on events until something is to be decoded; False when the answer is over."""
        for step in self._steps:
            if isinstance(step, Decode):
                self._pending = step.tokens
                return True
            self._put(step)
        return False

    def _put(self, event: Event) -> None:
        self.n_withdrawn += isinstance(event, CallWithdrawn)
        if isinstance(event, Reply):
            queue_s = self.generation.started_at - self.job.running.submitted_at
            timings = replace(event.timings, queue_s=queue_s, ttft_s=event.timings.ttft_s + queue_s)
            self.reply = replace(event, timings=timings)
        else:
            self.job.running.put(event)

    def run(self, n_most: int) -> Run:
        """The next piece of what is pending; it ends where a state is to be kept."""
        n = min(n_most, len(self._pending))
        if self._stops:
            n = min(n, self._stops[0] - len(self.slot.tokens))
        return Run(self.slot, self._pending[:n], wants_logits=n == len(self._pending))

    def note(self, run: Run) -> bool:
        """Takes note that a piece was decoded; True where a state is to be kept now."""
        self._pending = self._pending[len(run.tokens) :]
        if self._pending:
            self.job.running.put(PrefillProgress(len(self.slot.tokens), len(self.job.prompt)))
        if self._stops and len(self.slot.tokens) >= self._stops[0]:
            del self._stops[0]
            return True
        return False

    def close(self) -> None:
        """Frees what the answer holds besides its slot."""
        self._steps.close()
        self.generation.close()
        self._chain.close()
