"""What is compared: GGUF files, OpenAI endpoints, a transformers checkpoint; and how each answers a case.

`open_variant` gives something with `answer(case, grammar=...)`. Every case is answered greedily from an empty context:
its answer depends neither on the cases before it nor on their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from edge.accuracy.answers import Answer, answer_of_events
from edge.accuracy.cases import EvalCase
from edge.accuracy.digests import digest_of, file_identity, tokens_digest
from edge.chat.template import ChatTemplate, render_prompt
from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.engine.model import Vocabulary
from edge.engine.request import DEFAULT_MAX_TOKENS, ChatRequest, plan_tools
from edge.engine.sampling import SamplingOptions
from edge.errors import ContextOverflow

Kind: TypeAlias = Literal["gguf", "endpoint", "transformers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSpec:
    """One of the things compared. location: a path, or the endpoint's base URL; model: the endpoint's name for it."""

    name: str
    kind: Kind
    location: str
    template: ChatTemplate | None = None
    model: str = ""
    api_key: str = ""

    @property
    def has_logits(self) -> bool:
        """Whether its distributions can be read."""
        return self.kind != "endpoint"

    @property
    def has_grammar(self) -> bool:
        """Whether answers can be had both with the grammar and without."""
        return self.kind == "gguf"

    def identity(self) -> str:
        """Changes with what answers: for a file its size and samples of its bytes."""
        if self.kind == "gguf":
            return file_identity(Path(self.location))
        if self.kind == "transformers":
            files = [*sorted(Path(self.location).glob("*.safetensors")), Path(self.location) / "config.json"]
            return digest_of([file_identity(file) for file in files if file.exists()])
        return digest_of([self.location, self.model])


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """How every variant answers. template: the same for all. n_ctx: room for the longest prompt and its answer."""

    template: ChatTemplate | None = None
    n_ctx: int | None = None
    n_threads: int | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    think: bool | None = None
    kv_type: str = "f16"

    def request(self, case: EvalCase, *, grammar: bool = True) -> ChatRequest:
        """What the engine is asked; greedy, with a fixed seed, nothing reused from the case before."""
        return ChatRequest(
            messages=case.messages,
            tools=case.tools,
            max_tokens=self.max_tokens,
            sampling=SamplingOptions(temperature=0.0, seed=0),
            grammar=grammar,
            enable_thinking=self.think,
            cache_prompt=False,
        )

    def context(self) -> ContextOptions:
        """The context that engines and scorers are made with."""
        return ContextOptions(n_ctx=self.n_ctx, n_threads=self.n_threads, kv_type=self.kv_type)


class Answerer(Protocol):
    """A variant that is loaded."""

    def answer(self, case: EvalCase, *, grammar: bool) -> Answer: ...


class EngineAnswerer:
    """A GGUF file in this program's own engine."""

    def __init__(self, engine: Engine, options: AnswerOptions) -> None:
        self._engine, self._options = engine, options

    def answer(self, case: EvalCase, *, grammar: bool) -> Answer:
        request = self._options.request(case, grammar=grammar)
        prompt = prompt_tokens(self._engine.chat_template, self._engine.model.vocab, request)
        try:
            events = self._engine.stream(request)
        except ContextOverflow as exc:
            return Answer(error=str(exc))
        digest = tokens_digest(prompt)
        return answer_of_events(events, case.compiled(), constrained=grammar, prompt_digest=digest)


@contextmanager
def open_variant(spec: VariantSpec, options: AnswerOptions) -> Iterator[Answerer]:
    """The variant, loaded. Raises EdgeError."""
    if spec.kind == "endpoint":
        from edge.accuracy.endpoint import open_endpoint

        with open_endpoint(spec, options) as endpoint:
            yield endpoint
    elif spec.kind == "transformers":
        from edge.accuracy.transformers_model import open_transformers

        yield open_transformers(spec, options)
    else:
        template = options.template or spec.template
        with Engine(
            spec.location, chat_template=template, temperature=0.0, context=options.context()
        ) as engine:
            yield EngineAnswerer(engine, options)


def prompt_tokens(template: ChatTemplate, vocab: Vocabulary, request: ChatRequest) -> list[int]:
    """The token ids that the engine prefills for a request."""
    offered = [tool.tool for tool in plan_tools(request).offered]
    rendered = render_prompt(template, request.messages, offered, enable_thinking=request.enable_thinking)
    return vocab.tokenize(rendered.text, add_bos=True)
