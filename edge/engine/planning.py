"""From a request to a plan: the prompt's tokens, what is offered and forced, and where a state is worth keeping.

Runs on the caller's thread, so that a request which cannot be answered is refused before it is queued.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge.chat.messages import normalize_messages
from edge.chat.parser import OPENER
from edge.chat.template import ChatTemplate, RenderedPrompt, render_prompt
from edge.engine.constraint import n_shortest_call
from edge.engine.generation import CLOSE_THINKING, GenerationPlan
from edge.engine.history import History, Turn
from edge.engine.model import Model
from edge.engine.request import (
    ChatRequest,
    CompletionRequest,
    ToolPlan,
    check_completion,
    check_gbnf,
    check_token_ids,
    completion_rules,
    plan_tools,
    text_rules,
)
from edge.engine.slot import n_common
from edge.errors import ContextOverflow, EdgeError, RequestError, TemplateError
from edge.grammar import CompiledTool
from edge.types import Reply, Tool

_MAX_BLOCKS = 32


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a prompt was rendered from, for the turn that goes on from it. base: as of `Turn`."""

    messages: list[dict[str, object]]
    tools: list[Tool]
    enable_thinking: bool | None
    base: str

    @property
    def setting(self) -> object:
        """All of it that is not messages, to compare."""
        return self.tools, self.enable_thinking

    def turn(self, tokens: list[int], reply: Reply) -> Turn:
        """The turn that an answer makes of it; tokens: of the prompt and the answer."""
        return Turn(self.messages, self.setting, self.base, tokens, reply)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan; stops and n_block as of `Job`; conversation: None for a raw prompt."""

    plan: GenerationPlan
    stops: tuple[int, ...] = ()
    n_block: int = 0
    conversation: Conversation | None = None


class Planner:
    """Plans requests for one model and one template. For several threads."""

    def __init__(self, model: Model, template: ChatTemplate, n_ctx: int) -> None:
        self._vocab, self._template, self._n_ctx = model.vocab, template, n_ctx
        self.history: Final = History()
        self._blocks: OrderedDict[str, list[int]] = (
            OrderedDict()
        )  # tokens of prompts' beginnings by their text
        self._openings: dict[bool | None, str] = {}  # what begins an answer, by enable_thinking

    def plan(self, request: ChatRequest | CompletionRequest) -> Planned:
        """Raises RequestError, ToolsError, TemplateError or ContextOverflow for what cannot be answered."""
        planned = (
            self._plan_completion(request)
            if isinstance(request, CompletionRequest)
            else self._plan_chat(request)
        )
        if planned.plan.text_rules is not None:
            check_gbnf(planned.plan.text_rules.gbnf, self._vocab)
        return planned

    def _plan_completion(self, request: CompletionRequest) -> Planned:
        check_completion(request)
        if isinstance(request.prompt, str):
            prompt = self._vocab.tokenize(request.prompt, add_bos=True)
        else:
            prompt = list(request.prompt)
            check_token_ids(prompt, self._vocab)
        if not prompt:
            raise RequestError("the prompt is empty; at least one token is needed")
        if len(prompt) >= self._n_ctx:
            raise ContextOverflow(len(prompt), self._n_ctx)
        return Planned(
            GenerationPlan(
                prompt=prompt,
                max_tokens=request.max_tokens,
                stop=request.stop,
                text_rules=completion_rules(request),
                verbatim=True,
                n_top_logprobs=request.top_logprobs if request.logprobs else None,
            )
        )

    def _plan_chat(self, request: ChatRequest) -> Planned:
        tools = plan_tools(request)
        offered = [tool.tool for tool in tools.offered]
        if offered and self._template.tool_format == "none":
            raise TemplateError(
                f"the chat template ({self._template.origin}) has no place for tools; give one that has"
            )
        messages = normalize_messages(request.messages)
        rendered = self._render(messages, offered, request.enable_thinking)
        opening = self._opening(request.enable_thinking)
        base = rendered.text.removesuffix(opening)
        conversation = Conversation(messages, offered, request.enable_thinking, base)
        text, opens_thinking = rendered.text, rendered.opens_thinking
        if tools.forced and opens_thinking:
            text, opens_thinking = text + CLOSE_THINKING, False  # a call inside thinking opens nothing
        prompt = self._tokens(text, conversation if request.cache_prompt else None)
        forced = self._vocab.tokenize(OPENER) if tools.forced else []
        if len(prompt) + len(forced) >= self._n_ctx:
            raise ContextOverflow(len(prompt), self._n_ctx)
        if forced:
            self._check_budget(tools.callable, len(prompt), len(forced), request.max_tokens)
        plan = _generation_plan(request, tools, prompt, forced, opens_thinking)
        if not request.cache_prompt:
            return Planned(plan)
        n_block = self._n_block(text, prompt, conversation)
        return Planned(
            plan,
            stops=self._stops(prompt, n_block, text[len(base) :]),
            n_block=n_block,
            conversation=conversation,
        )

    def _render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Tool],
        enable_thinking: bool | None,
        *,
        opens_answer: bool = True,
    ) -> RenderedPrompt:
        return render_prompt(
            self._template, messages, tools, enable_thinking=enable_thinking, opens_answer=opens_answer
        )

    def _check_budget(
        self, tools: Sequence[CompiledTool], n_prompt: int, n_opener: int, max_tokens: int
    ) -> None:
        """Raises RequestError when not even the shortest call fits, naming the number that is needed."""
        n_free = self._n_ctx - n_prompt
        needed = (n_opener + n_shortest_call(tool, self._vocab) for tool in tools)
        n_least = 0
        for n in needed:
            if n <= min(max_tokens, n_free):
                return
            n_least = min(n, n_least or n)
        found = f"max_tokens is {max_tokens}" if max_tokens <= n_free else f"n_ctx leaves {n_free} tokens"
        raise RequestError(f"{found}; the shortest call takes {n_least}, so at least {n_least} are needed")

    def _tokens(self, text: str, conversation: Conversation | None) -> list[int]:
        """The prompt's tokens: those of an earlier turn as it was really written, then those of the rest."""
        if conversation is not None:
            turn = self.history.find(conversation.messages, conversation.setting)
            if turn is not None and (rest := self._behind(turn, text, conversation)) is not None:
                return turn.tokens + self._vocab.tokenize(rest)
        return self._vocab.tokenize(text, add_bos=True)

    def _behind(self, turn: Turn, text: str, conversation: Conversation) -> str | None:
        """The prompt's text from where the turn's answer was ended; None where the two do not fit together."""
        answered = conversation.messages[: len(turn.messages) + 1]
        try:
            shown = self._render(
                answered, conversation.tools, conversation.enable_thinking, opens_answer=False
            ).text
        except EdgeError:
            return None
        if not shown.startswith(turn.base) or not text.startswith(shown):
            return None  # the template shows earlier turns in another form now
        if turn.reply.reasoning and turn.reply.reasoning not in shown[len(turn.base) :]:
            return None  # it leaves out what was thought
        end = max((shown.rfind(mark) for mark in self._vocab.end_marks), default=-1)
        return text[end:] if end >= len(turn.base) else None

    def _opening(self, enable_thinking: bool | None) -> str:
        """What the template begins an answer with: behind the last message, before the model's first token."""
        known = self._openings.get(enable_thinking)
        if known is None:
            probe = [{"role": "user", "content": "x"}]
            try:
                opened = self._render(probe, (), enable_thinking).text
                ended = self._render(probe, (), enable_thinking, opens_answer=False).text
            except EdgeError:
                opened = ended = ""
            known = opened[len(ended) :] if opened.startswith(ended) else ""
            self._openings[enable_thinking] = known
        return known

    def _stops(self, prompt: list[int], n_block: int, opening: str) -> tuple[int, ...]:
        """Behind the block, and behind the last message: a next turn may go on from there."""
        stops = {n_block}
        tail = self._vocab.tokenize(opening) if opening else []
        if tail and prompt[-len(tail) :] == tail:
            stops.add(len(prompt) - len(tail))
        return tuple(sorted(n for n in stops if 0 < n < len(prompt)))

    def _n_block(self, text: str, prompt: list[int], conversation: Conversation) -> int:
        """Tokens at the prompt's beginning that do not depend on what is asked: system text and tools."""
        tokens = self._known_block(text)
        if tokens is None:
            tokens = self._add_block(conversation)
        return len(tokens) if tokens and n_common(prompt, tokens) == len(tokens) else 0

    def _known_block(self, text: str) -> list[int] | None:
        known = [block for block in list(self._blocks) if text.startswith(block)]
        return self._blocks.get(max(known, key=len)) if known else None

    def _add_block(self, conversation: Conversation) -> list[int]:
        """What the prompts of two unlike questions have in common, up to its last control token."""
        head = [message for message in conversation.messages[:1] if message["role"] == "system"]
        if not head and not conversation.tools:
            return []
        try:
            one, other = (
                self._render(
                    [*head, {"role": "user", "content": question}],
                    conversation.tools,
                    conversation.enable_thinking,
                ).text
                for question in ("0", "x")
            )
        except EdgeError:
            return []  # a template that wants other messages than these
        block = one[: n_common(one, other)]
        tokens = self._vocab.tokenize(block, add_bos=True)
        while tokens and not self._vocab.is_control(tokens[-1]):
            tokens.pop()
        self._blocks[block] = tokens
        if len(self._blocks) > _MAX_BLOCKS:
            self._blocks.popitem(last=False)
        return tokens


def _generation_plan(
    request: ChatRequest, tools: ToolPlan, prompt: list[int], forced: list[int], opens_thinking: bool
) -> GenerationPlan:
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
        text_rules=text_rules(request),
        call_progress=request.call_progress,
        cache_prompt=request.cache_prompt,
        n_top_logprobs=request.top_logprobs if request.logprobs else None,
    )
