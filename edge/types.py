"""Plain values that cross rooms: tools, calls, events and the reply. No behaviour beyond checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

JsonValue: TypeAlias = bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"] | None
Schema: TypeAlias = Mapping[str, object] | bool
Message: TypeAlias = Mapping[str, object]
FinishReason: TypeAlias = Literal["stop", "tool_calls", "length"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call, as OpenAI's `tools` list declares it."""

    name: str
    parameters: Schema  # JSON Schema of the arguments object
    description: str = ""

    def to_openai(self) -> dict[str, object]:
        """The form that chat templates and the wire use."""
        function: dict[str, object] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        function["parameters"] = self.parameters
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete call: names a given tool, arguments already validated against its schema."""

    id: str
    name: str
    arguments: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class MalformedCall:
    """Call text that was not a valid call; only possible with the grammar off."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A sampled token with its log probability, before temperature and grammar.

    data: the token's bytes, which may be a part of a character. top: the likeliest tokens at this place, likeliest
    first, with an empty `top` of their own; empty unless asked for.
    """

    token_id: int
    data: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()

    @property
    def text(self) -> str:
        """The token as text; bytes that are no character become U+FFFD."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """So many of the prompt's tokens are in the model's state; comes after each piece that was decoded."""

    n_done: int
    n_prompt: int


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """A piece of the answer's text. logprobs: of the tokens since the last piece, where they were asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the model's thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class ContentWasReasoning:
    """A bare `</think>` came: the content since the start of the answer was thinking."""


@dataclass(frozen=True, slots=True)
class CallOpened:
    """`<tool_call>` was written; the call follows as one `ToolCall`, or is withdrawn."""


@dataclass(frozen=True, slots=True)
class CallProgress:
    """The open call's text so far, from behind `<tool_call>`; may run into its end. Only where it was asked for."""

    text: str


@dataclass(frozen=True, slots=True)
class CallWithdrawn:
    """The open call could not be finished within the budget and is not handed out."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `forced_tokens` are completion tokens that were given, not sampled."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    forced_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall seconds. `ttft_s` runs from the request to the first sampled token, waiting in `queue_s` included."""

    load_s: float = 0.0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    ttft_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LateCheckNote:
    """A keyword of a called tool that no grammar holds: checked as the call was written, and when it was whole.

    All other keywords of the schemas were held by the grammar.
    """

    tool: str
    pointer: str  # JSON pointer in the tool's schema
    keyword: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One finished answer."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    malformed_calls: tuple[MalformedCall, ...] = ()
    late_checks: tuple[LateCheckNote, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()  # of the content's tokens, where they were asked for


Event: TypeAlias = (
    PrefillProgress
    | ContentDelta
    | ReasoningDelta
    | ContentWasReasoning
    | CallOpened
    | CallProgress
    | CallWithdrawn
    | ToolCall
    | MalformedCall
    | Reply
)
