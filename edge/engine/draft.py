"""The reply as it grows: parser events become events for the caller; finished calls are validated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge.chat.calls import CallSyntaxError, parse_call
from edge.chat.parser import CallText, ParserEvent, StopHit
from edge.errors import EngineError
from edge.grammar import CompiledSchema, CompiledTool
from edge.types import (
    CallOpened,
    CallWithdrawn,
    ContentDelta,
    ContentWasReasoning,
    Event,
    FinishReason,
    LateCheckNote,
    MalformedCall,
    ReasoningDelta,
    Reply,
    Timings,
    TokenLogprob,
    ToolCall,
    Usage,
)


class Draft:
    """What one answer has come to so far.

    tools: what may be called. grammar: calls are made under it, so that a broken one is a defect of ours.
    calls_only: anything but a call ends the answer.
    text_schema: what the content follows beyond its grammar.
    """

    def __init__(
        self,
        tools: Sequence[CompiledTool],
        *,
        grammar: bool,
        calls_only: bool,
        text_schema: CompiledSchema | None = None,
    ) -> None:
        self._tools = {tool.tool.name: tool for tool in tools}
        self._schemas = {tool.tool.name: tool.tool.parameters for tool in tools}
        self._text_schema = text_schema
        self._grammar, self._calls_only = grammar, calls_only
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._malformed: list[MalformedCall] = []
        self.calls: list[ToolCall] = []
        self.logprobs: list[TokenLogprob] = []
        self.withdrawn = False
        self.stopped = False  # a stop string, or the end of what was asked for
        self.is_whole = True  # all that the model wrote is in the reply

    @property
    def has_begun(self) -> bool:
        """Whether there is anything of the answer itself; thinking is not."""
        return bool(self._content or self.calls or self._malformed)

    def take(self, events: Sequence[ParserEvent]) -> Iterator[Event]:
        """Notes the events and yields what a caller is told of them."""
        for event in events:
            match event:
                case ContentDelta() if self._calls_only:
                    self.stopped, self.is_whole = True, False
                case ContentDelta(text):
                    self._content.append(text)
                    yield event
                case ReasoningDelta(text):
                    self._reasoning.append(text)
                    yield event
                case ContentWasReasoning():
                    self._reasoning, self._content = self._reasoning + self._content, []
                    yield event
                case CallOpened():
                    yield event
                case CallWithdrawn():
                    self.withdrawn, self.is_whole = True, False
                    yield event
                case StopHit():
                    self.stopped, self.is_whole = True, False
                case CallText(text):
                    yield self._judge(text)

    def _judge(self, text: str) -> ToolCall | MalformedCall | CallWithdrawn:
        reason, tool = "", None
        try:
            name, arguments = parse_call(text, self._schemas)
            if (tool := self._tools.get(name)) is None:
                reason = f"there is no tool {name!r}"
            elif (fault := tool.validate(arguments)) is not None:
                reason = fault
            else:
                call = ToolCall(f"call_{len(self.calls)}", name, arguments)
                self.calls.append(call)
                return call
        except CallSyntaxError as exc:
            reason = str(exc)
        if self._grammar and tool is not None and tool.late_checks:
            # The grammar could not say all of the schema, and the model broke what it does not say.
            self.withdrawn = self.stopped = True
            self.is_whole = False
            return CallWithdrawn()
        if self._grammar:
            # Grammar and validator disagree: a defect of ours, and still no reason to hand the call out.
            raise EngineError(f"a call made under the grammar is not valid ({reason}): {text.strip()!r}")
        self.is_whole = False
        malformed = MalformedCall(text, reason)
        self._malformed.append(malformed)
        return malformed

    def _late_checks(self) -> tuple[LateCheckNote, ...]:
        checked: dict[str, CompiledSchema] = {call.name: self._tools[call.name] for call in self.calls}
        if self._text_schema is not None:
            checked["response_format"] = self._text_schema
        return tuple(
            LateCheckNote(name, late.pointer, late.keyword)
            for name, compiled in checked.items()
            for late in compiled.late_checks
        )

    def reply(self, usage: Usage, timings: Timings, *, complete: bool) -> Reply:
        """The finished reply. complete: it ended by itself and not at a limit."""
        reason: FinishReason = "tool_calls" if self.calls else "stop"
        if self.withdrawn or not complete:
            reason = "length"
        return Reply(
            content="".join(self._content),
            reasoning="".join(self._reasoning),
            tool_calls=tuple(self.calls),
            finish_reason=reason,
            usage=usage,
            timings=timings,
            malformed_calls=tuple(self._malformed),
            late_checks=self._late_checks(),
            logprobs=tuple(self.logprobs),
        )
