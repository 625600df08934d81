"""An OpenAI endpoint as a variant: chat completions over HTTP. What it answers is judged here, not believed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edge.accuracy.answers import Answer, MadeCall, fault_of, read_text
from edge.accuracy.cases import EvalCase
from edge.accuracy.errors import EndpointError
from edge.chat.calls import CallSyntaxError, parse_call
from edge.grammar import CompiledTool

if TYPE_CHECKING:
    import httpx

    from edge.accuracy.variants import AnswerOptions, VariantSpec

_TIMEOUT_S = 600.0  # a 4B on a board may prefill for minutes
_N_TRIES = 4
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_TOO_LONG = ("context_length_exceeded", "exceed_context_size")


@contextmanager
def open_endpoint(spec: VariantSpec, options: AnswerOptions) -> Iterator[EndpointAnswerer]:
    """A client of the endpoint, with the first model it lists unless one is named. Raises EndpointError."""
    try:
        import httpx
    except ImportError as exc:
        raise EndpointError("httpx is not installed; install smoltools-edge anew") from exc
    headers = {"Authorization": f"Bearer {spec.api_key}"} if spec.api_key else {}
    with httpx.Client(base_url=spec.location, headers=headers, timeout=_TIMEOUT_S) as client:
        yield EndpointAnswerer(client, spec, options)


class EndpointAnswerer:
    """Asks the endpoint. Whether it constrains calls is its own matter: there is one way of answering."""

    def __init__(self, client: httpx.Client, spec: VariantSpec, options: AnswerOptions) -> None:
        self._client, self._spec, self._options = client, spec, options
        self._model = spec.model or self._first_model()

    def _first_model(self) -> str:
        listed = self._send("GET", "/models", None)
        try:
            return str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise EndpointError(
                f"{self._spec.location}/models lists no model; name one with --endpoint-model"
            ) from None

    def answer(self, case: EvalCase, *, grammar: bool) -> Answer:
        del grammar
        started = time.perf_counter()
        body: dict[str, object] = {
            "model": self._model,
            "messages": [_wire_message(message) for message in case.messages],
            "temperature": 0,
            "seed": 0,
            "max_tokens": self._options.max_tokens,
        }
        if case.tools:
            body["tools"] = [tool.to_openai() for tool in case.tools]
        if self._options.think is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self._options.think}
        try:
            completion = self._send("POST", "/chat/completions", body)
        except _TooLong as exc:
            return Answer(error=str(exc))
        return read_completion(completion, case.compiled(), time.perf_counter() - started)

    def _send(self, method: str, path: str, body: object) -> Any:  # noqa: ANN401 - JSON of any shape
        """The decoded answer; waits and asks again where the server is busy or was not there for a moment."""
        import httpx

        where = self._spec.location + path
        problem = ""
        for attempt in range(_N_TRIES):
            try:
                response = self._client.request(method, path.lstrip("/"), json=body)
            except httpx.HTTPError as exc:
                problem = f"{type(exc).__name__}: {exc}"
            except httpx.InvalidURL as exc:
                raise EndpointError(f"{self._spec.location} is not a URL: {exc}") from None
            else:
                if response.is_success:
                    return _decoded(response.text, where)
                problem = f"HTTP {response.status_code}: {response.text[:200].strip()}"
                if any(mark in response.text for mark in _TOO_LONG):
                    raise _TooLong(problem)
                if response.status_code not in _RETRIED:
                    break
            if attempt + 1 < _N_TRIES:
                time.sleep(2.0**attempt / 2)
        raise EndpointError(f"{where} does not answer as OpenAI's API does: {problem}")


class _TooLong(Exception):
    """The prompt does not fit the server's context."""


def _decoded(text: str, where: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise EndpointError(f"{where} answered what is not JSON: {text[:80]!r}") from None


def _wire_message(message: Mapping[str, object]) -> dict[str, object]:
    """A message with call arguments as the JSON strings that OpenAI's wire has."""
    wire = dict(message)
    calls = wire.get("tool_calls")
    if isinstance(calls, list):
        wire["tool_calls"] = [
            call
            | {
                "function": call["function"]
                | {"arguments": json.dumps(call["function"].get("arguments", {}))}
            }
            for call in calls
        ]
    return wire


def read_completion(completion: object, tools: Mapping[str, CompiledTool], wall_s: float) -> Answer:
    """A chat completion as an answer. Raises EndpointError for anything else.

    Calls that the server left in the text, because it does not know their form, are calls all the same.
    """
    try:
        choice = completion["choices"][0]  # type: ignore[index]
        message = choice["message"]
        wire_calls = message.get("tool_calls") or []
        calls = [_wire_call(call["function"], tools) for call in wire_calls]
        text = message.get("content") or ""
        reasoning = message.get("reasoning_content") or ""
        finish_reason = str(choice.get("finish_reason") or "")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise EndpointError(f"the answer is not a chat completion: {str(completion)[:120]}") from None
    content, thinking, written = read_text(str(text), tools)
    usage = completion.get("usage") if isinstance(completion, Mapping) else None
    counts = usage if isinstance(usage, Mapping) else {}
    return Answer(
        calls=(*calls, *written),
        content=content,
        reasoning=str(reasoning) + thinking,
        finish_reason=finish_reason,
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
        wall_s=wall_s,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _wire_call(function: Mapping[str, object], tools: Mapping[str, CompiledTool]) -> MadeCall:
    name, arguments = function["name"], function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    written = f'{{"name": {json.dumps(name)}, "arguments": {text or "{}"}}}'
    try:
        name, decoded = parse_call(written)
    except CallSyntaxError as exc:
        return MadeCall(name if isinstance(name, str) else None, None, str(exc), written)
    return MadeCall(name, decoded, fault_of(name, decoded, tools))
