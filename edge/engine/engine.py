"""Load a model, chat with tools, stream. The one object that a program holds."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.chat.template import ChatTemplate, hermes_template
from edge.engine.answer import Answer, Job
from edge.engine.context import Context, ContextOptions
from edge.engine.generation import Generation
from edge.engine.history import History
from edge.engine.model import Model, ModelOptions
from edge.engine.planning import Planner
from edge.engine.request import ChatRequest, CompletionRequest, check_token_ids
from edge.engine.running import EventStream, OnEvent, Running
from edge.engine.sampling import GrammarCache
from edge.engine.scheduler import OnFinish, Scheduler
from edge.engine.slots import Slots
from edge.engine.state_cache import StateCache, StateCacheOptions
from edge.engine.stats import EngineStats
from edge.errors import EngineError, TemplateError
from edge.types import Reply

DEFAULT_TEMPERATURE = 0.1  # what the smol-tools models were evaluated with


class Engine:
    """A model with one context, which a thread of its own decodes with. For any number of threads.

    path: a .gguf file.
    chat_template: replaces the file's own. Without one, the file's is used if it writes calls in the Hermes form;
        otherwise the built-in Hermes template, where the vocabulary is ChatML's.
    temperature: what requests get that name none.
    n_parallel: how many answers are made at once, each with n_ctx tokens. max_queue: how many requests may wait.
    state_cache: keeps what was computed for system texts and tools on disk; None keeps nothing there.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        chat_template: ChatTemplate | None = None,
        temperature: float = DEFAULT_TEMPERATURE,
        model: ModelOptions | None = None,
        context: ContextOptions | None = None,
        n_parallel: int = 1,
        max_queue: int = 64,
        state_cache: StateCacheOptions | None = None,
    ) -> None:
        started = time.perf_counter()
        self.temperature = temperature
        self.model = Model(path, model)
        try:
            self.chat_template = chat_template or _choose_template(self.model)
            n_spare = 0 if self.model.is_hybrid else 1  # a slot of a hybrid model holds 50 MiB at 4B
            self.context = Context(self.model, context, n_parallel=n_parallel, n_spare=n_spare)
            self._template_was_given = chat_template is not None
        except BaseException:
            self.model.close()
            raise
        self.load_s = time.perf_counter() - started
        self._planner = Planner(self.model, self.chat_template, self.context.plan.n_ctx)
        snapshot_bytes = (context or ContextOptions()).snapshot_bytes
        slots = Slots(self.context, snapshot_bytes=snapshot_bytes)
        cache = None
        if state_cache is not None:
            cache = StateCache(state_cache, self.model.path, self.context.plan)
        grammars = GrammarCache(self.model.vocab)
        self._scheduler = Scheduler(
            self.context,
            slots,
            grammars,
            max_queue=max_queue,
            state_cache=cache,
            on_finish=_finisher(self._planner.history, self.load_s),
        )
        # Also at the interpreter's end: llama.cpp must not decode while its library is taken down.
        self._finalizer = weakref.finalize(
            self, _free, self._scheduler, cache, grammars, self.context, self.model
        )

    @property
    def facts(self) -> dict[str, object]:
        """What is loaded: path, architecture, quantization, size, template."""
        facts = self.model.intake.facts | {"chat_template": self.chat_template.origin}
        return facts | {"warnings": list(self.warnings)}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the model file, a sentence each; about its template only if no other was given."""
        intake = self.model.intake
        is_odd = intake.template_warning is not None and not self._template_was_given
        return (*intake.warnings, *((intake.template_warning,) if is_odd else ()))

    @property
    def n_ctx(self) -> int:
        """Tokens that one answer's prompt and text may have together."""
        return self.context.plan.n_ctx

    def submit(
        self,
        request: ChatRequest | CompletionRequest,
        *,
        deadline_s: float | None = None,
        on_event: OnEvent | None = None,
    ) -> Running:
        """Takes a request in; its answer is made on the engine's own thread. For any number of threads at once.

        deadline_s: from now, waiting included. on_event: is called with each event, on the engine's thread, so it
        must be quick (`loop.call_soon_threadsafe`); the last one is the reply or an EdgeError.
        Raises RequestError, ToolsError, TemplateError or ContextOverflow for a request that cannot be answered,
        QueueFull, EngineClosed.
        """
        planned = self._planner.plan(request)
        sampling = request.sampling
        if sampling.temperature is None:
            sampling = replace(sampling, temperature=self.temperature)
        running = Running(deadline_s=deadline_s, on_event=on_event, on_cancel=self._scheduler.wake)
        self._scheduler.submit(
            Job(
                running,
                planned.plan,
                sampling,
                stops=planned.stops,
                n_block=planned.n_block,
                conversation=planned.conversation,
            )
        )
        return running

    def chat(self, request: ChatRequest | CompletionRequest) -> Reply:
        """The whole answer. Raises EdgeError and nothing else for anything in the request."""
        for event in self.stream(request):
            if isinstance(event, Reply):
                return event
        raise EngineError("the generation ended without a reply")

    def stream(self, request: ChatRequest | CompletionRequest) -> EventStream:
        """The answer as it is made; the last event is the `Reply`. Closing the iterator gives the answer up.

        The request is checked here, before the first event is asked for.
        """
        return self.submit(request).events()

    def stats(self) -> EngineStats:
        """What is running and waiting, and totals since the engine was made."""
        return self._scheduler.stats()

    @property
    def last_generation(self) -> Generation | None:
        """The answer that was begun last, for measuring."""
        answer = self._scheduler.last_answer
        return None if answer is None else answer.generation

    def tokenize(self, text: str, *, add_bos: bool = False) -> list[int]:
        """Token ids of a text; control tokens may be named in it. Raises RequestError."""
        return self.model.vocab.tokenize(text, add_bos=add_bos)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of token ids. Raises RequestError for an id outside the vocabulary."""
        check_token_ids(token_ids, self.model.vocab)
        return self.model.vocab.text(token_ids)

    def close(self, grace_s: float = 0.0) -> None:
        """Refuses new requests, lets running ones finish for `grace_s`, then frees everything. Safe to call twice."""
        self._scheduler.close(grace_s)
        self._finalizer()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: Any) -> None:  # noqa: ANN401
        self.close()


def _finisher(history: History, load_s: float) -> OnFinish:
    """Remembers each finished turn, and fills in how long the model took to load."""

    def finish(answer: Answer, reply: Reply) -> Reply:
        conversation, generation = answer.job.conversation, answer.generation
        if conversation is not None and generation.draft.is_whole:
            history.add(conversation.turn([*answer.job.prompt, *generation.tokens], reply))
        return replace(reply, timings=replace(reply.timings, load_s=load_s))

    return finish


def _free(
    scheduler: Scheduler, cache: StateCache | None, grammars: GrammarCache, context: Context, model: Model
) -> None:
    scheduler.close(0.0)
    if cache is not None:
        cache.close()
    grammars.close()
    context.close()
    model.close()


def _choose_template(model: Model) -> ChatTemplate:
    own = ChatTemplate(model.chat_template, "the model file's own") if model.chat_template else None
    if own and own.tool_format == "hermes":
        return own
    if model.vocab.has_token("<|im_start|>") and model.vocab.has_token("<|im_end|>"):
        return hermes_template()
    if own:
        return own
    raise TemplateError(
        f"{model.path} has no chat template and is not a ChatML model; give one with a template"
    )
