"""The requests as OpenAI's API has them, checked in form; what they mean is `translate`'s matter.

Unknown names at the top are refused, as OpenAI does, so that a misspelt option is not taken for an honoured one.
Inside messages they are ignored: clients send back what earlier answers held.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.server.limits import MAX_MESSAGES, MAX_STOPS, MAX_TOOLS

Stop = (
    Annotated[str, Field(min_length=1, max_length=1_000)]
    | Annotated[list[Annotated[str, Field(min_length=1, max_length=1_000)]], Field(max_length=MAX_STOPS)]
)
Probability = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
Count = Annotated[int, Field(ge=1, le=1 << 31)]


class Strict(BaseModel):
    """No conversions (`"1"` is no number), no unknown names."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Loose(BaseModel):
    """No conversions; unknown names are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class ContentPart(Loose):
    """A piece of a message's content; only text can be read."""

    type: str
    text: str | None = None


class FunctionCall(Loose):
    """What was called. arguments: a JSON object, written as a string."""

    name: str
    arguments: str | dict[str, Any] = "{}"


class CallInMessage(Loose):
    """A call that the assistant made earlier."""

    id: str = ""
    type: str = "function"
    function: FunctionCall


class WireMessage(Loose):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[CallInMessage] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class StreamOptions(Loose):
    """include_usage: the last chunk of a stream carries the token counts."""

    include_usage: bool | None = None


class TemplateOptions(Loose):
    """Options that some chat templates know."""

    enable_thinking: bool | None = None


class Sampling(Strict):
    """What chat and plain completions share. The names behind `seed` are accepted and have no effect here."""

    model: str = Field(default="", max_length=500)
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=5)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=0, le=1 << 20)] | None = None
    min_p: Probability | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    seed: Seed | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    user: str | None = None


class ChatBody(Sampling):
    """`POST /v1/chat/completions`."""

    messages: list[WireMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "none", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_completion_tokens: Count | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: TemplateOptions | None = None
    stream_tool_arguments: bool | None = None
    modalities: list[str] | None = None
    functions: list[Any] | None = None
    function_call: str | dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prediction: dict[str, Any] | None = None
    verbosity: str | None = None


TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=(1 << 31) - 1)]], Field(min_length=1)]


class CompletionBody(Sampling):
    """`POST /v1/completions`. prompt: one or several texts, or the token ids of one or several."""

    prompt: str | TokenIds | list[str] | list[TokenIds] = Field(union_mode="left_to_right")
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class TokenizeBody(Strict):
    """`POST /v1/tokenize`. add_special: put the begin-of-sequence token first, where the model has one."""

    content: str
    add_special: bool = False


class DetokenizeBody(Strict):
    """`POST /v1/detokenize`."""

    tokens: TokenIds | Annotated[list[int], Field(max_length=0)]
