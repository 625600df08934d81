"""Times a loaded engine: prefill, free text, constrained calls, the first token.

All seconds are the engine's own (`Reply.timings`), the same that `run --json` tells; nothing here has a clock. Reads
nothing of the device and prints nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edge.bench.figures import Calls, Figures, FirstToken, Prefill, Skipped, Speed, speed, spread
from edge.engine.engine import Engine
from edge.engine.request import ChatRequest, CompletionRequest
from edge.engine.sampling import SamplingOptions
from edge.errors import ContextError, RequestError, TemplateError
from edge.types import Message, Tool

T = TypeVar("T")
OnStep = Callable[[str, int, int], None]  # stage, repeats done, repeats in all; the warm-up is one of them

DEFAULT_PROMPT_TOKENS = (128, 512)
MAX_REPEATS = 1000
_MAX_CALL_TOKENS = 256
_MOST_ANSWERS = 16  # that one repeat of free text is put together from, if the model ends them early
_STORY = "Write a long story about a lighthouse, its keeper and a storm."


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What is measured, and how often. prompt_tokens: of each prefill; none for 128 and 512, as far as n_ctx allows."""

    repeats: int = 3
    prompt_tokens: tuple[int, ...] = ()
    gen_tokens: int = 128

    def check(self) -> None:
        """Raises RequestError for a number outside its range."""
        if not 1 <= self.repeats <= MAX_REPEATS:
            raise RequestError(f"repeats is {self.repeats}; allowed is 1 to {MAX_REPEATS}")
        if self.gen_tokens < 1:
            raise RequestError(f"gen_tokens is {self.gen_tokens}; at least 1 is needed")
        for n in self.prompt_tokens:
            if n < 1:
                raise RequestError(f"prompt_tokens is {n}; at least 1 is needed")

    def prompt_sizes(self, n_ctx: int) -> tuple[int, ...]:
        """The prefills to measure in a context. Raises RequestError for what was asked and does not fit."""
        if self.gen_tokens >= n_ctx:
            raise RequestError(f"gen_tokens is {self.gen_tokens}; n_ctx={n_ctx} leaves room for {n_ctx - 1}")
        for n in self.prompt_tokens:
            if n >= n_ctx:
                raise RequestError(f"prompt_tokens is {n}; n_ctx={n_ctx} leaves room for {n_ctx - 1}")
        return tuple(dict.fromkeys(self.prompt_tokens or (min(n, n_ctx - 1) for n in DEFAULT_PROMPT_TOKENS)))


def measure(engine: Engine, options: BenchOptions, tools: Sequence[Tool], on_step: OnStep) -> Figures:
    """All figures of an engine that answers nobody else. tools: what calls are made of.

    Raises RequestError for options that do not fit, before anything is timed. What the model or its context
    does not allow is skipped.
    """
    options.check()
    sizes = options.prompt_sizes(engine.n_ctx)
    skipped: list[Skipped] = []

    def unless_refused(what: str, stage: Callable[[], T]) -> T | None:
        try:
            return stage()
        except (ContextError, RequestError, TemplateError) as exc:
            skipped.append(Skipped(what, str(exc)))
            return None

    bench = _Bench(engine, options, tools, on_step)
    return Figures(
        load_seconds=engine.load_s,
        prefill=tuple(Prefill(n, bench.prefill(n)) for n in sizes),
        decode=unless_refused("free text", bench.free_text),
        calls=unless_refused("calls", bench.calls),
        first_token=unless_refused("first token", bench.first_token),
        skipped=tuple(skipped),
    )


@dataclass(frozen=True, slots=True)
class _Timed:
    """One answer. rest: behind the first sampled token, where prefill ends and decoding begins."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    forced_tokens: int
    first_s: float
    rest_tokens: int
    rest_s: float
    n_calls: int

    @property
    def total_s(self) -> float:
        return self.first_s + self.rest_s


class _Bench:
    """The stages; each repeat is preceded by one that warms up and does not count."""

    def __init__(self, engine: Engine, options: BenchOptions, tools: Sequence[Tool], on_step: OnStep) -> None:
        self._engine, self._options, self._tools, self._on_step = engine, options, tools, on_step

    def _repeat(self, stage: str, once: Callable[[int], T]) -> list[T]:
        total = self._options.repeats + 1
        results = []
        for i in range(total):
            self._on_step(stage, i, total)
            results.append(once(i))
        self._on_step(stage, total, total)
        return results[1:]

    def prefill(self, n_tokens: int) -> Speed:
        """Random tokens, as llama-bench takes them, so that nothing of an earlier prompt is held."""
        n_vocab = self._engine.model.vocab.n_tokens

        def once(i: int) -> tuple[int, float]:
            prompt = random.Random(f"{n_tokens}/{i}").choices(range(n_vocab), k=n_tokens)
            timed = self._time(
                CompletionRequest(prompt=prompt, max_tokens=1, sampling=SamplingOptions(seed=i))
            )
            return timed.prompt_tokens - timed.cached_tokens, timed.first_s

        return speed(self._repeat(f"prefill of {n_tokens} tokens", once))

    def free_text(self) -> Speed:
        """Text after a short question. Raises RequestError for a model that ends every answer at once."""
        result = speed(self._repeat("free text", self._write_text))
        if not all(result.tokens):
            raise RequestError("the model ended its answers before the second token")
        return result

    def _write_text(self, i: int) -> tuple[int, float]:
        """Tokens and seconds of one repeat, from several answers if the model ends them early."""
        tokens, seconds = 0, 0.0
        for attempt in range(_MOST_ANSWERS):
            left = self._options.gen_tokens - tokens
            sampling = SamplingOptions(seed=i * _MOST_ANSWERS + attempt)
            request = ChatRequest(messages=_ask(_STORY), max_tokens=left + 1, sampling=sampling)
            timed = self._time(request)
            tokens, seconds = tokens + timed.rest_tokens, seconds + timed.rest_s
            if tokens >= self._options.gen_tokens:
                break
        return tokens, seconds

    def calls(self) -> Calls:
        """Each repeat is a question for each of the example tools."""
        repeats = self._repeat("calls", lambda i: [self._call(text, i) for text in _questions(i)])
        answers = [timed for repeat in repeats for timed in repeat]
        valid = sum(timed.n_calls for timed in answers)
        completion = sum(timed.completion_tokens for timed in answers)
        forced = sum(timed.forced_tokens for timed in answers)
        per_call = [
            sum(t.total_s for t in repeat) / n for repeat in repeats if (n := sum(t.n_calls for t in repeat))
        ]
        return Calls(
            asked=len(answers),
            valid=valid,
            completion_tokens=completion,
            forced_tokens=forced,
            forced_share=forced / completion if completion else 0.0,
            speed=speed([(sum(t.rest_tokens for t in r), sum(t.rest_s for t in r)) for r in repeats]),
            seconds_per_valid_call=spread(per_call) if per_call else None,
        )

    def _call(self, question: str, seed: int) -> _Timed:
        return self._time(
            ChatRequest(
                messages=_ask(question),
                tools=self._tools,
                tool_choice="required",
                parallel_tool_calls=False,
                max_tokens=_MAX_CALL_TOKENS,
                sampling=SamplingOptions(seed=seed),
            )
        )

    def first_token(self) -> FirstToken:
        """Cold first: what it computes would otherwise push out what is to be reused."""

        def once(i: int, *, reuse: bool) -> _Timed:
            return self._time(
                ChatRequest(
                    # Begins with what is new, and the state of the cold one must not answer the reused one's.
                    messages=_ask(f"{i} {'times' if reuse else 'plus'} {i + 1} is what?"),
                    tools=self._tools,
                    max_tokens=1,
                    cache_prompt=reuse,
                    sampling=SamplingOptions(seed=i),
                )
            )

        cold = self._repeat("first token, cold", lambda i: once(i, reuse=False))
        reused = self._repeat("first token, tools reused", lambda i: once(i, reuse=True))
        return FirstToken(
            prompt_tokens=reused[0].prompt_tokens,
            reused_tokens=min(timed.cached_tokens for timed in reused),
            cold_seconds=spread([timed.first_s for timed in cold]),
            reused_seconds=spread([timed.first_s for timed in reused]),
        )

    def _time(self, request: ChatRequest | CompletionRequest) -> _Timed:
        reply = self._engine.chat(request)
        generation = self._engine.last_generation
        assert generation is not None
        usage, timings = reply.usage, reply.timings
        first_s = timings.ttft_s - timings.queue_s
        # The first token's own time is the prompt's. An end of generation is sampled like any token.
        n_ends = 1 if reply.finish_reason == "stop" else 0
        rest_tokens = max(0, usage.completion_tokens - generation.n_opening - 1 + n_ends)
        return _Timed(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            forced_tokens=usage.forced_tokens,
            first_s=first_s,
            rest_tokens=rest_tokens,
            rest_s=max(0.0, timings.prefill_s + timings.decode_s - first_s),
            n_calls=len(reply.tool_calls),
        )


def _ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _questions(i: int) -> tuple[str, ...]:
    """One for each example tool; others in each repeat, or an engine that keeps states would hold them whole."""
    return (
        f"What is the weather in Paris on day {i}?",
        f"How much is {i + 12} * (3 + 4)?",
        f"Put meeting number {i} with Ana into the calendar, tomorrow at noon for half an hour.",
    )
