"""One answer, token by token: free text is sampled freely, an open call under its constraint."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from edge.chat.calls import CallSyntaxError, parse_call
from edge.chat.parser import OPENER, CallText, OutputParser, ParserEvent, StopHit
from edge.engine.constraint import CallConstraint
from edge.engine.context import Context
from edge.engine.request import MAX_CALLS
from edge.engine.sampling import GrammarCache, SamplerChain
from edge.errors import EngineError
from edge.grammar import CompiledTool
from edge.types import (
    CallOpened,
    CallWithdrawn,
    ContentDelta,
    ContentWasReasoning,
    Event,
    FinishReason,
    MalformedCall,
    ReasoningDelta,
    Reply,
    Timings,
    ToolCall,
    Usage,
)

_OPENER = OPENER.encode()
CLOSE_THINKING = "\n</think>\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationPlan:
    """Everything about one answer that is settled before its first token.

    prompt: token ids up to where the answer begins.
    forced: token ids that the answer begins with without being sampled (an opened call). The answer then
        consists of calls: it ends where the model writes anything else.
    tools: what may be called; with none, `<tool_call>` is not sampled.
    """

    prompt: Sequence[int]
    forced: Sequence[int]
    tools: Sequence[CompiledTool]
    max_tokens: int
    single_call: bool
    use_grammar: bool
    opens_thinking: bool
    stop: Sequence[str]


@dataclass(slots=True)
class _Draft:
    """The reply as it grows."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    malformed: list[MalformedCall] = field(default_factory=list)
    withdrawn: bool = False
    stopped: bool = False


class Generation:
    """Runs one plan on a context. Iterate `events` once; the last event is the `Reply`."""

    def __init__(
        self, plan: GenerationPlan, context: Context, chain: SamplerChain, grammars: GrammarCache
    ) -> None:
        self.plan, self._context, self._chain, self._grammars = plan, context, chain, grammars
        self._vocab = context.model.vocab
        self._parser = OutputParser(opens_thinking=plan.opens_thinking, stop=plan.stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tools = {tool.tool.name: tool for tool in plan.tools}
        self._constraint: CallConstraint | None = None
        self._tail = b""  # the last bytes written, to see `<tool_call>` complete
        self._draft = _Draft()
        self.tokens: list[int] = []  # of the answer, the end of generation left out
        self.n_refused = self.n_descended = 0  # see CallConstraint

    def events(self) -> Iterator[Event]:
        """Prefills, decodes, and yields what becomes certain as soon as it does."""
        started = time.perf_counter()
        try:
            n_cached = self._context.keep_prefix([*self.plan.prompt, *self.plan.forced])
            self._context.decode([*self.plan.prompt, *self.plan.forced][n_cached:])
            prefilled = time.perf_counter()
            first_token_at = 0.0
            yield from self._write_forced()
            ended_by_model = False
            while self._may_go_on():
                tokens, piece = self._next()
                first_token_at = first_token_at or time.perf_counter()
                if not tokens:
                    ended_by_model = True
                    break
                yield from self._write(tokens, piece)
                if self._may_go_on():
                    self._context.decode(tokens)
            yield from self._handle(self._parser.feed(self._decoder.decode(b"", final=True)))
            yield from self._handle(self._parser.finish())
            ended = time.perf_counter()
            timings = Timings(
                prefill_s=prefilled - started,
                decode_s=ended - prefilled,
                ttft_s=(first_token_at or prefilled) - started,
            )
            yield self._reply(n_cached, timings, ended_by_model=ended_by_model)
        finally:
            self._drop_constraint()

    def _may_go_on(self) -> bool:
        draft = self._draft
        if draft.stopped or (self.plan.single_call and draft.calls) or len(draft.calls) >= MAX_CALLS:
            return False
        n_left = self._context.plan.n_ctx - len(self.plan.prompt) - len(self.tokens)
        return len(self.tokens) < self.plan.max_tokens and n_left > 0

    def _write_forced(self) -> Iterator[Event]:
        if self.plan.forced:
            self.tokens += self.plan.forced
            yield from self._handle(self._parser.feed(OPENER))
            self._open_call()

    def _next(self) -> tuple[list[int], bytes]:
        """The next tokens and their bytes; no tokens at the end of generation."""
        if self._constraint is not None:
            token = self._constraint.choose(self._chain, self._context)
            self._constraint.accept(token)
            return [token], self._vocab.piece(token)
        token = self._chain.sample(self._context)
        banned: set[int] = set()
        while True:
            if self._vocab.is_eog(token):
                return [], b""
            piece = self._vocab.piece(token)
            end = self._opener_end(piece)
            if end is None or (self.plan.tools and (end == len(piece) or not self.plan.use_grammar)):
                return [token], piece
            if self.plan.tools:
                # The token runs on past `<tool_call>`; only what is behind it is for the grammar to decide.
                return self._vocab.tokenize(piece[:end].decode()), piece[:end]
            banned.add(token)  # no call may be made, so none is opened
            token = self._chain.sample_without(self._context, banned)

    def _opener_end(self, piece: bytes) -> int | None:
        """Where in `piece` an opening `<tool_call>` ends, if it does so there and opens a call."""
        if b">" not in piece or self._parser.in_thinking or self._parser.in_call:
            return None
        found = (self._tail + piece).find(_OPENER)
        end = found + len(_OPENER) - len(self._tail)
        return end if found >= 0 and end > 0 else None

    def _write(self, tokens: Sequence[int], piece: bytes) -> Iterator[Event]:
        self.tokens += tokens
        self._tail = (self._tail + piece)[-(len(_OPENER) - 1) :]
        was_in_call = self._parser.in_call
        yield from self._handle(self._parser.feed(self._decoder.decode(piece)))
        if self._parser.in_call and not was_in_call and self.plan.use_grammar:
            self._open_call()

    def _open_call(self) -> None:
        if self.plan.use_grammar:
            self._constraint = CallConstraint(self.plan.tools, self._grammars, self._vocab)

    def _drop_constraint(self) -> None:
        if self._constraint is not None:
            self.n_refused += self._constraint.n_refused
            self.n_descended += self._constraint.n_descended
            self._constraint.close()
            self._constraint = None

    def _handle(self, events: Sequence[ParserEvent]) -> Iterator[Event]:
        draft = self._draft
        for event in events:
            match event:
                case ContentDelta() if self.plan.forced:
                    draft.stopped = True  # a call was asked for and is made; the model has left that form
                case ContentDelta(text):
                    draft.content.append(text)
                    yield event
                case ReasoningDelta(text):
                    draft.reasoning.append(text)
                    yield event
                case ContentWasReasoning():
                    draft.reasoning, draft.content = draft.reasoning + draft.content, []
                    yield event
                case CallOpened():
                    yield event
                case CallWithdrawn():
                    draft.withdrawn = True
                    yield event
                case StopHit():
                    draft.stopped = True
                case CallText(text):
                    self._drop_constraint()
                    self._tail = b""
                    yield self._finish_call(text)

    def _finish_call(self, text: str) -> ToolCall | MalformedCall | CallWithdrawn:
        reason, tool = "", None
        try:
            name, arguments = parse_call(text)
            if (tool := self._tools.get(name)) is None:
                reason = f"there is no tool {name!r}"
            elif (fault := tool.validate(arguments)) is not None:
                reason = fault
            else:
                call = ToolCall(f"call_{len(self._draft.calls)}", name, arguments)
                self._draft.calls.append(call)
                return call
        except CallSyntaxError as exc:
            reason = str(exc)
        if self.plan.use_grammar and tool is not None and tool.late_checks:
            # The grammar could not say all of the schema, and the model broke what it does not say.
            self._draft.withdrawn = self._draft.stopped = True
            return CallWithdrawn()
        if self.plan.use_grammar:
            # Grammar and validator disagree: a defect of ours, and still no reason to hand the call out.
            raise EngineError(f"a call made under the grammar is not valid ({reason}): {text.strip()!r}")
        malformed = MalformedCall(text, reason)
        self._draft.malformed.append(malformed)
        return malformed

    def _reply(self, n_cached: int, timings: Timings, *, ended_by_model: bool) -> Reply:
        draft = self._draft
        complete = ended_by_model or draft.stopped or (self.plan.single_call and bool(draft.calls))
        reason: FinishReason = "tool_calls" if draft.calls else "stop"
        if draft.withdrawn or not (complete or len(draft.calls) >= MAX_CALLS):
            reason = "length"
        return Reply(
            content="".join(draft.content),
            reasoning="".join(draft.reasoning),
            tool_calls=tuple(draft.calls),
            finish_reason=reason,
            usage=Usage(
                prompt_tokens=len(self.plan.prompt),
                completion_tokens=len(self.tokens),
                cached_tokens=min(n_cached, len(self.plan.prompt)),
                forced_tokens=len(self.plan.forced),
            ),
            timings=timings,
            malformed_calls=tuple(draft.malformed),
        )


def with_load_time(reply: Reply, load_s: float) -> Reply:
    """The reply with the model's loading time filled in."""
    return replace(reply, timings=replace(reply.timings, load_s=load_s))
