"""What a model answered to one case, in a form that goes to disk and comes back the same. Judges nothing."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.chat.calls import CallSyntaxError, parse_call
from edge.chat.parser import CLOSER, OPENER, CallText, OutputParser
from edge.errors import EngineError
from edge.grammar import CompiledTool
from edge.types import (
    CallWithdrawn,
    ContentDelta,
    ContentWasReasoning,
    Event,
    MalformedCall,
    ReasoningDelta,
    Reply,
    ToolCall,
)


@dataclass(frozen=True, slots=True)
class MadeCall:
    """One `<tool_call>` block of an answer, however broken.

    name, arguments: as far as they could be read; both None where the block is not a call in JSON at all.
    fault: why it is not a valid call of a given tool, empty where it is.
    """

    name: str | None
    arguments: Mapping[str, object] | None
    fault: str = ""
    text: str = ""  # what was written, where that is not what `name` and `arguments` say

    @property
    def is_json(self) -> bool:
        """Whether it is a JSON object with a name and an arguments object."""
        return self.name is not None and self.arguments is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One variant's answer to one case. error: why there is none. Times are wall seconds.

    prompt_digest: of the prompt's token ids, the same for every variant; empty for an endpoint.
    """

    calls: tuple[MadeCall, ...] = ()
    content: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    forced_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    wall_s: float = 0.0
    prompt_digest: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Answer:
        """The inverse of `to_json`. Raises TypeError or KeyError for anything else."""
        return cls(**{**value, "calls": tuple(MadeCall(**call) for call in value["calls"])})

    def text(self) -> str:
        """The answer as the model would be shown it: thinking, content, calls in their trained form."""
        head = f"<think>\n{self.reasoning}\n</think>\n\n" if self.reasoning else ""
        blocks = [self.content] if self.content else []
        return head + "\n".join(blocks + [call.text or call_text(call) for call in self.calls])


def call_text(call: MadeCall) -> str:
    """A call between its tags, written as the models were trained to write it."""
    body = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
    return f"{OPENER}\n{body}\n{CLOSER}"


def answer_of_events(
    events: Iterable[Event],
    tools: Mapping[str, CompiledTool],
    *,
    constrained: bool,
    prompt_digest: str,
) -> Answer:
    """The answer that an engine's stream comes to; runs the stream to its end.

    constrained: an open call that did not fit was withdrawn by the program and never handed out. Without the grammar
        a client would have been left with its beginning, so it counts as a malformed call.
    """
    started = time.perf_counter()
    made: list[MadeCall] = []
    for event in events:
        match event:
            case ToolCall(_, name, arguments):
                made.append(MadeCall(name, arguments))
            case MalformedCall(text, reason):
                made.append(read_call(text, tools, reason))
            case CallWithdrawn() if not constrained:
                made.append(_unfinished())
            case Reply() as reply:
                return Answer(
                    calls=tuple(made),
                    content=reply.content,
                    reasoning=reply.reasoning,
                    finish_reason=reply.finish_reason,
                    prompt_tokens=reply.usage.prompt_tokens,
                    completion_tokens=reply.usage.completion_tokens,
                    forced_tokens=reply.usage.forced_tokens,
                    prefill_s=reply.timings.prefill_s,
                    decode_s=reply.timings.decode_s,
                    wall_s=time.perf_counter() - started,
                    prompt_digest=prompt_digest,
                )
    raise EngineError("the generation ended without a reply")


def read_call(text: str, tools: Mapping[str, CompiledTool], fault: str = "") -> MadeCall:
    """A block's text as a call; what is wrong with it is found out unless `fault` says so already."""
    written = f"{OPENER}{text}{CLOSER}"
    try:
        name, arguments = parse_call(text, {key: tool.tool.parameters for key, tool in tools.items()})
    except CallSyntaxError as exc:
        return MadeCall(None, None, fault or str(exc), written)
    return MadeCall(name, arguments, fault or fault_of(name, arguments, tools), written)


def fault_of(name: str, arguments: Mapping[str, object], tools: Mapping[str, CompiledTool]) -> str:
    """Why this is not a valid call of a given tool; empty where it is."""
    if name not in tools:
        return f"there is no tool {name!r}"
    return tools[name].validate(dict(arguments)) or ""


def read_text(
    text: str, tools: Mapping[str, CompiledTool], *, opens_thinking: bool = False
) -> tuple[str, str, list[MadeCall]]:
    """Content, reasoning and calls of a model's whole output."""
    parser = OutputParser(opens_thinking=opens_thinking)
    content, reasoning, calls = "", "", []
    for event in [*parser.feed(text), *parser.finish()]:
        match event:
            case ContentDelta(piece):
                content += piece
            case ReasoningDelta(piece):
                reasoning += piece
            case ContentWasReasoning():
                content, reasoning = "", reasoning + content
            case CallText(piece):
                calls.append(read_call(piece, tools))
            case CallWithdrawn():
                calls.append(_unfinished())
    return content, reasoning, calls


def _unfinished() -> MadeCall:
    return MadeCall(None, None, "it was not finished", OPENER)
