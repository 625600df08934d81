"""Load a model, chat with tools, stream. The one object that a program holds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.chat.parser import OPENER
from edge.chat.template import ChatTemplate, hermes_template, render_prompt
from edge.engine.constraint import n_shortest_call
from edge.engine.context import Context, ContextOptions
from edge.engine.generation import CLOSE_THINKING, Generation, GenerationPlan, with_load_time
from edge.engine.model import Model, ModelOptions, model_facts
from edge.engine.request import (
    ChatRequest,
    CompletionRequest,
    check_completion,
    check_gbnf,
    check_token_ids,
    completion_grammar,
    plan_tools,
    text_grammar,
)
from edge.engine.running import EventStream, OnEvent, Running
from edge.engine.sampling import GrammarCache, SamplerChain
from edge.engine.scheduler import EngineStats, Job, Scheduler
from edge.errors import ContextOverflow, EngineError, RequestError, TemplateError
from edge.grammar import CompiledTool
from edge.types import Event, Reply

DEFAULT_TEMPERATURE = 0.1  # what the smol-tools models were evaluated with


class Engine:
    """A model with one context, which a thread of its own decodes with. For any number of threads.

    path: a .gguf file.
    chat_template: replaces the file's own. Without one, the file's is used if it writes calls in the Hermes form;
        otherwise the built-in Hermes template, where the vocabulary is ChatML's.
    temperature: what requests get that name none.
    n_parallel: how many answers are made at once. max_queue: how many requests may wait for that.
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
    ) -> None:
        started = time.perf_counter()
        self.temperature = temperature
        self.model = Model(path, model)
        try:
            self.chat_template = chat_template or _choose_template(self.model)
            self.context = Context(self.model, context)
        except BaseException:
            self.model.close()
            raise
        self._grammars = GrammarCache(self.model.vocab)
        self.load_s = time.perf_counter() - started
        self.last_generation: Generation | None = None
        self._scheduler = Scheduler(self._answer, n_parallel=n_parallel, max_queue=max_queue)

    @property
    def facts(self) -> dict[str, object]:
        """What is loaded: path, architecture, quantization, size, template."""
        return model_facts(self.model.header) | {"chat_template": self.chat_template.origin}

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
        plan = (
            self._plan_completion(request) if isinstance(request, CompletionRequest) else self._plan(request)
        )
        if plan.text_gbnf:
            check_gbnf(plan.text_gbnf, self.model.vocab)
        sampling = request.sampling
        if sampling.temperature is None:
            sampling = replace(sampling, temperature=self.temperature)
        return self._scheduler.submit(plan, sampling, deadline_s, on_event)

    def chat(self, request: ChatRequest | CompletionRequest) -> Reply:
        """The whole answer. Raises EdgeError and nothing else for anything in the request."""
        for event in self.submit(request).events():
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

    def tokenize(self, text: str, *, add_bos: bool = False) -> list[int]:
        """Token ids of a text; control tokens may be named in it. Raises RequestError."""
        return self.model.vocab.tokenize(text, add_bos=add_bos)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of token ids. Raises RequestError for an id outside the vocabulary."""
        check_token_ids(token_ids, self.model.vocab)
        return self.model.vocab.text(token_ids)

    def _answer(self, job: Job) -> Iterator[Event]:
        plan = job.plan
        if (plan.tools and plan.use_grammar) or plan.text_gbnf:
            self._grammars.prepare()
        chain = SamplerChain(job.sampling, self.model.vocab)
        try:
            generation = self.last_generation = Generation(plan, self.context, chain, self._grammars)
            for event in generation.events():
                yield with_load_time(event, self.load_s) if isinstance(event, Reply) else event
        finally:
            chain.close()

    def _plan_completion(self, request: CompletionRequest) -> GenerationPlan:
        check_completion(request)
        if isinstance(request.prompt, str):
            prompt = self.model.vocab.tokenize(request.prompt, add_bos=True)
        else:
            prompt = list(request.prompt)
            check_token_ids(prompt, self.model.vocab)
        if not prompt:
            raise RequestError("the prompt is empty; at least one token is needed")
        if len(prompt) >= self.context.plan.n_ctx:
            raise ContextOverflow(len(prompt), self.context.plan.n_ctx)
        return GenerationPlan(
            prompt=prompt,
            max_tokens=request.max_tokens,
            stop=request.stop,
            text_gbnf=completion_grammar(request),
        )

    def _plan(self, request: ChatRequest) -> GenerationPlan:
        tools = plan_tools(request)
        offered = [tool.tool for tool in tools.offered]
        if offered and self.chat_template.tool_format == "none":
            raise TemplateError(
                f"the chat template ({self.chat_template.origin}) has no place for tools; give one that has"
            )
        rendered = render_prompt(
            self.chat_template, request.messages, offered, enable_thinking=request.enable_thinking
        )
        vocab = self.model.vocab
        text, opens_thinking = rendered.text, rendered.opens_thinking
        if tools.forced and opens_thinking:
            text, opens_thinking = text + CLOSE_THINKING, False  # a call inside thinking opens nothing
        prompt = vocab.tokenize(text, add_bos=True)
        forced = vocab.tokenize(OPENER) if tools.forced else []
        if len(prompt) + len(forced) >= self.context.plan.n_ctx:
            raise ContextOverflow(len(prompt), self.context.plan.n_ctx)
        if forced:
            self._check_budget(tools.callable, len(prompt), len(forced), request.max_tokens)
        return GenerationPlan(
            prompt=prompt,
            forced=forced,
            tools=tools.callable,
            max_tokens=request.max_tokens,
            max_calls=tools.max_calls,
            use_grammar=request.grammar,
            force_text=request.force_text,
            opens_thinking=opens_thinking,
            stop=request.stop,
            text_gbnf=text_grammar(request),
            cache_prompt=request.cache_prompt,
        )

    def _check_budget(
        self, tools: Sequence[CompiledTool], n_prompt: int, n_opener: int, max_tokens: int
    ) -> None:
        """Raises RequestError when not even the shortest call fits, naming the number that is needed."""
        n_free = self.context.plan.n_ctx - n_prompt
        needed = (n_opener + n_shortest_call(tool, self.model.vocab) for tool in tools)
        n_least = 0
        for n in needed:
            if n <= min(max_tokens, n_free):
                return
            n_least = min(n, n_least or n)
        found = f"max_tokens is {max_tokens}" if max_tokens <= n_free else f"n_ctx leaves {n_free} tokens"
        raise RequestError(f"{found}; the shortest call takes {n_least}, so at least {n_least} are needed")

    def close(self, grace_s: float = 0.0) -> None:
        """Refuses new requests, lets running ones finish for `grace_s`, then frees everything. Safe to call twice."""
        self._scheduler.close(grace_s)
        self._grammars.close()
        self.context.close()
        self.model.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: Any) -> None:  # noqa: ANN401
        self.close()


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
