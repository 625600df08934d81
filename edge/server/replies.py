"""Replies and their pieces as OpenAI's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.types import Reply, TokenLogprob, ToolCall

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Heading:
    """What all documents of one answer have in common. key: random, part of every id."""

    key: str
    created: int  # seconds since 1970
    model_id: str

    def document(self, prefix: str, kind: str, choices: Sequence[Json]) -> Json:
        """The outer object of an answer or of a chunk."""
        return {
            "id": f"{prefix}-{self.key}",
            "object": kind,
            "created": self.created,
            "model": self.model_id,
            "choices": list(choices),
        }

    def call_id(self, choice: int, call: int) -> str:
        """Differs between the turns of a conversation, where a call's number alone does not."""
        return f"call_{self.key}{choice:02d}{call:02d}"


def chat_document(heading: Heading, replies: Sequence[Reply]) -> Json:
    """The body of a chat completion that is not streamed."""
    choices = [_chat_choice(heading, i, reply) for i, reply in enumerate(replies)]
    document = heading.document("chatcmpl", "chat.completion", choices)
    return document | {"usage": usage(replies, len(replies)), "timings": timings(replies)}


def _chat_choice(heading: Heading, index: int, reply: Reply) -> Json:
    message: Json = {"role": "assistant", "content": reply.content, "refusal": None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["content"] = reply.content or None
        message["tool_calls"] = [
            call_document(heading.call_id(index, n), call) for n, call in enumerate(reply.tool_calls)
        ]
    logprobs = chat_logprobs(reply.logprobs) if reply.logprobs else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reply.finish_reason}


def call_document(call_id: str, call: ToolCall) -> Json:
    """One call; its arguments are JSON in a string."""
    function = {"name": call.name, "arguments": arguments_text(call)}
    return {"id": call_id, "type": "function", "function": function}


def arguments_text(call: ToolCall) -> str:
    """A call's arguments as JSON."""
    text = json.dumps(call.arguments, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # the model escaped half of a surrogate pair, which UTF-8 cannot hold
        return json.dumps(call.arguments)
    return text


def completion_document(
    heading: Heading, replies: Sequence[Reply], *, n_per_prompt: int, echo: Sequence[str]
) -> Json:
    """The body of a plain completion that is not streamed. echo: what the texts begin with, if anything."""
    begins = echo or [""] * len(replies)
    choices = [
        completion_choice(i, begin + reply.content, reply.logprobs, reply.finish_reason, offset=len(begin))
        for i, (begin, reply) in enumerate(zip(begins, replies, strict=True))
    ]
    document = heading.document("cmpl", "text_completion", choices)
    return document | {"usage": usage(replies, n_per_prompt), "timings": timings(replies)}


def completion_choice(
    index: int, text: str, logprobs: Sequence[TokenLogprob], finish_reason: str | None, *, offset: int
) -> Json:
    """A choice of a plain completion, or a piece of one. offset: characters of the choice before this piece."""
    listed = plain_logprobs(logprobs, offset) if logprobs else None
    return {"index": index, "text": text, "logprobs": listed, "finish_reason": finish_reason}


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> Json:
    """Log probabilities as chat completions have them."""
    content = [_token(token) | {"top_logprobs": [_token(top) for top in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def _token(token: TokenLogprob) -> Json:
    return {"token": token.text, "logprob": _finite(token.logprob), "bytes": list(token.data)}


def _finite(logprob: float) -> float:
    return max(logprob, -9999.0)  # what OpenAI writes for a token that was as good as impossible


def plain_logprobs(tokens: Sequence[TokenLogprob], offset: int) -> Json:
    """Log probabilities as plain completions have them."""
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [{top.text: _finite(top.logprob) for top in token.top} for token in tokens],
        "text_offset": offsets,
    }


def usage(replies: Sequence[Reply], n_per_prompt: int) -> Json:
    """Token counts; several answers to one prompt count it once, as OpenAI does."""
    prompt = sum(reply.usage.prompt_tokens for reply in replies[::n_per_prompt])
    cached = sum(reply.usage.cached_tokens for reply in replies[::n_per_prompt])
    completion = sum(reply.usage.completion_tokens for reply in replies)
    forced = sum(reply.usage.forced_tokens for reply in replies)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"forced_tokens": forced},
    }


def timings(replies: Sequence[Reply]) -> Mapping[str, object]:
    """Times of the first answer, under llama-server's names; forced_n and ttft_ms are ours."""
    use, times = replies[0].usage, replies[0].timings
    n_prefilled = use.prompt_tokens - use.cached_tokens
    return {
        "cache_n": use.cached_tokens,
        "prompt_n": n_prefilled,
        "prompt_ms": round(times.prefill_s * 1000, 3),
        "prompt_per_second": _rate(n_prefilled, times.prefill_s),
        "predicted_n": use.completion_tokens,
        "predicted_ms": round(times.decode_s * 1000, 3),
        "predicted_per_second": _rate(use.completion_tokens, times.decode_s),
        "forced_n": use.forced_tokens,
        "ttft_ms": round(times.ttft_s * 1000, 3),
    }


def _rate(n: int, seconds: float) -> float:
    return round(n / seconds, 3) if seconds > 0 else 0.0
