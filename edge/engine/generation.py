"""One answer, token by token: free text is sampled freely, an open call under its constraint.

Decodes nothing itself: it says what to decode next and goes on when the logits are there, so that several answers
can share a step.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edge.chat.parser import OPENER, CallText, OutputParser, ParserEvent
from edge.engine.constraint import CallConstraint, n_shortest_call
from edge.engine.draft import Draft
from edge.engine.logprobs import token_logprob
from edge.engine.request import MAX_CALLS
from edge.engine.sampling import GrammarCache, SamplerChain
from edge.engine.slot import Checkpoint, Slot
from edge.engine.text_constraint import TextConstraint, TextRules
from edge.engine.written import DeadEnd
from edge.grammar import CompiledTool
from edge.types import CallProgress, ContentDelta, ContentWasReasoning, Event, Timings, TokenLogprob, Usage

_OPENER = OPENER.encode()
CLOSE_THINKING = "\n</think>\n\n"
# Whether a call can still be finished is asked when fewer tokens than this are left: most calls take 20 to 60.
# It is asked when an eighth of what was left then is used: the answer saves the time of a call that will be withdrawn
# anyway, and the matcher needs 0.2 ms a token for it.
_NEARLY_OUT = 256
# At a low temperature an answer begins with a call where that is at least as likely as all other beginnings together.
_CALLS_FROM = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationPlan:
    """Everything about one answer that is settled before its first token.

    prompt: token ids up to where the answer begins.
    forced: token ids that the answer begins with without being sampled (an opened call). The answer then
        consists of calls: it ends where the model writes anything else.
    tools: what may be called; with none, `<tool_call>` is not sampled.
    max_calls: the answer ends behind that many.
    use_grammar: calls are constrained. force_text: what the grammar leaves no choice about is not sampled.
    """

    prompt: list[int]
    forced: Sequence[int] = ()
    tools: Sequence[CompiledTool] = ()
    max_tokens: int
    max_calls: int = MAX_CALLS
    use_grammar: bool = True
    force_text: bool = True
    opens_thinking: bool = False
    stop: Sequence[str] = ()
    cache_prompt: bool = True  # what the context holds of the prompt already is not computed again
    text_rules: TextRules | None = None  # what the answer's content follows, where it is not free text
    call_progress: bool = False  # tell what is written of a call
    verbatim: bool = False  # tags and white space are text like any other
    n_top_logprobs: int | None = (
        None  # at each token of the content, besides its own; None for no log probabilities
    )


@dataclass(frozen=True, slots=True)
class Decode:
    """Asks for these tokens to be appended to the slot; the logits of the last one are wanted."""

    tokens: Sequence[int]


Step: TypeAlias = Event | Decode


class Generation:
    """Runs one plan on a slot that holds a beginning of its prompt, or nothing. Iterate `steps` once."""

    def __init__(self, plan: GenerationPlan, slot: Slot, chain: SamplerChain, grammars: GrammarCache) -> None:
        self.plan, self._slot, self._chain, self._grammars = plan, slot, chain, grammars
        self._vocab = slot.model.vocab
        self._parser = OutputParser(
            opens_thinking=plan.opens_thinking,
            stop=plan.stop,
            plain=plan.text_rules is not None or plan.verbatim,
            verbatim=plan.verbatim,
        )
        self._text_constraint: TextConstraint | None = None
        self._is_stuck = False  # its rules leave the text no way on
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._constraint: CallConstraint | None = None
        self._opened_at: Checkpoint | None = None  # kept where a call may have to go back
        self._n_before_call = 0  # tokens of the answer up to and with the opener
        self._asked_with_left = 0  # tokens left when it was last asked
        self._keeps_checkpoints = plan.use_grammar and any(tool.late_checks for tool in plan.tools)
        self._tells_calls = plan.call_progress and not self._keeps_checkpoints
        self._tail = b""  # the last bytes written, to see `<tool_call>` complete
        self.draft = Draft(
            plan.tools,
            grammar=plan.use_grammar,
            calls_only=bool(plan.forced),
            text_schema=plan.text_rules.schema if plan.text_rules else None,
        )
        self._first_sampled_at = 0.0
        self.started_at = time.perf_counter()
        self.n_cached = 0
        self.n_opening = 0  # tokens of the answer that were there before anything was sampled
        self.tokens: list[int] = []  # of the answer, the end of generation left out
        self._forced_at: list[int] = []  # which of these were not sampled
        self._logprobs: list[TokenLogprob] = []  # of content tokens whose text has not been handed out
        self.n_refused = self.n_descended = 0  # see CallConstraint

    def steps(self) -> Generator[Step, None, None]:
        """Yields what becomes certain as soon as it does, and what is to be decoded; the last is the `Reply`."""
        try:
            yield from self._prefill()
            prefilled, self.n_opening = time.perf_counter(), len(self.tokens)
            complete = yield from self._decode()
            yield from self._take(self._parser.feed(self._decoder.decode(b"", final=True)))
            yield from self._take(self._parser.finish())
            timings = Timings(
                prefill_s=prefilled - self.started_at,
                decode_s=time.perf_counter() - prefilled,
                ttft_s=(self._first_sampled_at or prefilled) - self.started_at,
            )
            usage = Usage(len(self.plan.prompt), len(self.tokens), self.n_cached, len(self._forced_at))
            yield self.draft.reply(usage, timings, complete=complete)
        finally:
            self.close()

    def close(self) -> None:
        """Frees the grammars. Safe to call twice."""
        self._drop_constraint()

    def _prefill(self) -> Iterator[Step]:
        """Decodes the prompt, as far as the slot lacks it, and what the answer is forced to begin with."""
        if not self._keeps_checkpoints:
            yield from self._write_forced()
        tokens = [*self.plan.prompt, *self.tokens]
        n_held = len(self._slot.tokens)
        self.n_cached = min(n_held, len(self.plan.prompt))
        yield Decode(tokens[n_held:])
        if self._keeps_checkpoints and self.plan.forced:
            # They lie before the opener, so that must not be decoded yet.
            yield from self._write_forced()
            yield Decode(self.tokens[:])

    def _decode(self) -> Generator[Step, None, bool]:
        """Samples and decodes to the end. Returns whether the answer ended by itself."""
        while not self._is_settled():
            if self._n_left() <= 0 or self._is_out_of_reach():
                return False
            tokens, piece = yield from self._next()
            self._first_sampled_at = self._first_sampled_at or time.perf_counter()
            if not tokens:
                return not self._is_stuck
            n_before = len(self.tokens)
            yield from self._write(tokens, piece)
            if self._n_left() > 0 and not self._is_settled():
                yield Decode(self.tokens[n_before:])
        return True

    def _is_settled(self) -> bool:
        return self.draft.stopped or len(self.draft.calls) >= self.plan.max_calls

    def _n_left(self) -> int:
        in_context = self._slot.plan.n_ctx - len(self.plan.prompt)
        return min(self.plan.max_tokens, in_context) - len(self.tokens)

    def _is_out_of_reach(self) -> bool:
        """Whether the open call can no longer be finished; what it would still say is then not worth its time."""
        n_left = self._n_left()
        if self._constraint is None or n_left >= _NEARLY_OUT:
            return False
        if n_left > self._asked_with_left - max(self._asked_with_left // 8, 1):
            return False
        self._asked_with_left = n_left
        return not self._constraint.can_end_within(n_left)

    def _write_forced(self) -> Iterator[Event]:
        if self.plan.forced:
            self._note_forced(self.plan.forced)
            yield from self._take(self._parser.feed(OPENER))
            yield from self._open_call()

    def _next(self) -> Generator[Step, None, tuple[list[int], bytes]]:
        """The next tokens and their bytes; no tokens at the end of generation."""
        if self._constraint is not None:
            return (yield from self._next_in_call(self._constraint))
        if self.plan.text_rules is not None and not self._parser.in_thinking:
            return self._next_of_text(self.plan.text_rules)
        token = self._chain.sample(self._slot)
        banned: set[int] = set()
        if self._is_rather_text(token):
            banned |= self._opening_tokens()
            token = self._chain.sample_without(self._slot, banned)
        while True:
            if self._vocab.is_eog(token):
                return [], b""
            piece = self._vocab.piece(token)
            end = self._opener_end(piece)
            if end is None:
                return [token], piece
            if self._may_open(end):
                if end == len(piece) or not self.plan.use_grammar:
                    return [token], piece
                # The token runs on past `<tool_call>`; only what is behind it is for the grammar to decide.
                return self._vocab.tokenize(piece[:end].decode()), piece[:end]
            banned.add(token)
            token = self._chain.sample_without(self._slot, banned)

    def _is_rather_text(self, token: int) -> bool:
        """Whether a low temperature is about to call a tool although text is likelier.

        Calls all begin with one token, texts with any of thousands. Token against token a call wins with a tenth of the
        probability; what is to be chosen first is whether to call at all. At temperature 1 the draw is fair by itself.
        """
        if not (self.plan.tools and self._chain.is_sharp) or self.draft.has_begun or self._parser.in_thinking:
            return False
        opening = self._opening_tokens()
        return token in opening and self._chain.probability(self._slot, list(opening)) < _CALLS_FROM

    def _opening_tokens(self) -> set[int]:
        """What `<tool_call>` can begin with: one token of its own in most models, `<` in others."""
        beginnings = (self._vocab.tokenize(OPENER[: n + 1]) for n in range(len(OPENER)))
        return {tokens[0] for tokens in beginnings if len(tokens) == 1}

    def _next_of_text(self, rules: TextRules) -> tuple[list[int], bytes]:
        if self._text_constraint is None:
            self._text_constraint = TextConstraint(rules, self._grammars, self._vocab)
        try:
            token = self._text_constraint.choose(self._chain, self._slot)
        except DeadEnd:
            self._is_stuck = True
            return [], b""
        return ([], b"") if token is None else ([token], self._vocab.piece(token))

    def _next_in_call(self, constraint: CallConstraint) -> Generator[Step, None, tuple[list[int], bytes]]:
        """The next token of the open call and its bytes; no token when there is no way on."""
        while True:
            try:
                token = constraint.choose(self._chain, self._slot)
            except DeadEnd:
                again = self._step_back(constraint)
                if again is None:
                    return [], b""
                yield again
                continue
            constraint.accept(token)
            return [token], self._vocab.piece(token)

    def _step_back(self, constraint: CallConstraint) -> Decode | None:
        """Takes back the call's last choice, in the text and in the model's state; None to give the call up."""
        call_tokens = constraint.step_back()
        if call_tokens is None or self._opened_at is None:
            return None
        del self.tokens[self._n_before_call + len(call_tokens) :]
        self._forced_at = [i for i in self._forced_at if i < len(self.tokens)]
        text = b"".join(map(self._vocab.piece, call_tokens))
        self._decoder.reset()
        self._parser.rewrite_call(self._decoder.decode(text))
        return Decode(self._slot.rewind(self._opened_at, [*self.plan.prompt, *self.tokens]))

    def _may_open(self, n_opener_bytes: int) -> bool:
        """Whether a call may be opened here: there is a tool, and its shortest call still fits."""
        if not self.plan.use_grammar:
            return bool(self.plan.tools)
        n_left = self._n_left() - n_opener_bytes  # the opener takes no more tokens than bytes
        return any(n_shortest_call(tool, self._vocab) <= n_left for tool in self.plan.tools)

    def _opener_end(self, piece: bytes) -> int | None:
        """Where in `piece` an opening `<tool_call>` ends, if it does so there and opens a call."""
        if b">" not in piece or self.plan.verbatim or self._parser.in_thinking or self._parser.in_call:
            return None
        found = (self._tail + piece).find(_OPENER)
        end = found + len(_OPENER) - len(self._tail)
        return end if found >= 0 and end > 0 else None

    def _write(self, tokens: Sequence[int], piece: bytes) -> Iterator[Event]:
        """Notes tokens that were sampled, and those that must follow them."""
        self._note_logprob(tokens, piece)
        self.tokens += tokens
        self._tail = (self._tail + piece)[-(len(_OPENER) - 1) :]
        was_in_call = self._parser.in_call
        yield from self._take(self._parser.feed(self._decoder.decode(piece)))
        if self._parser.in_call and not was_in_call:
            yield from self._open_call()
        else:
            yield from self._write_what_must_follow()

    def _open_call(self) -> Iterator[Event]:
        if self.plan.use_grammar:
            self._constraint = CallConstraint(self.plan.tools, self._grammars, self._vocab)
            self._n_before_call = len(self.tokens)
            self._asked_with_left = _NEARLY_OUT
            if self._keeps_checkpoints:
                self._opened_at = self._slot.checkpoint()
            yield from self._write_what_must_follow()

    def _write_what_must_follow(self) -> Iterator[Event]:
        if self._constraint is None or not self.plan.force_text:
            return
        tokens = self._constraint.forced()[: max(self._n_left(), 0)]
        self._note_forced(tokens)
        piece = b"".join(map(self._vocab.piece, tokens))
        yield from self._take(self._parser.feed(self._decoder.decode(piece)))

    def _note_forced(self, tokens: Sequence[int]) -> None:
        self._forced_at += range(len(self.tokens), len(self.tokens) + len(tokens))
        self.tokens += tokens

    def _note_logprob(self, tokens: Sequence[int], piece: bytes) -> None:
        """Only content has log probabilities: calls are drawn under a grammar, thinking is not part of the answer."""
        if self.plan.n_top_logprobs is None or self._parser.in_call or self._parser.in_thinking:
            return
        logits = self._chain.logits(self._slot)
        self._logprobs.append(token_logprob(logits, tokens[0], self.plan.n_top_logprobs, self._vocab))

    def _take(self, events: Sequence[ParserEvent]) -> Iterator[Event]:
        for parsed in events:
            if isinstance(parsed, CallText):
                if self._tells_calls:
                    yield CallProgress(parsed.text)
                self._end_call()
            for event in self.draft.take([parsed]):
                yield self._with_logprobs(event)
        if self._tells_calls and self._parser.in_call:
            yield CallProgress(self._parser.call_text)
        if self._parser.in_call or self._parser.in_thinking:
            self._logprobs = []  # they were of the tag that has just opened

    def _with_logprobs(self, event: Event) -> Event:
        match event:
            case ContentDelta(text) if self._logprobs:
                event = ContentDelta(text, tuple(self._logprobs))
                self.draft.logprobs += self._logprobs
                self._logprobs = []
            case ContentWasReasoning():
                self._logprobs = []
                self.draft.logprobs = []
            case _:
                pass
        return event

    def _end_call(self) -> None:
        self._drop_constraint()
        self._tail = b""

    def _drop_constraint(self) -> None:
        for constraint in (self._constraint, self._text_constraint):
            if constraint is not None:
                self.n_refused += constraint.n_refused
                self.n_descended += constraint.n_descended
                constraint.close()
        self._constraint = self._text_constraint = None
