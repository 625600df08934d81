"""Wire requests to the engine's requests. Options that would change the answer and cannot be honoured are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.engine.request import ChatRequest, CompletionRequest
from edge.engine.sampling import SamplingOptions
from edge.server.errors import refuse
from edge.server.limits import check_schemas
from edge.server.options import ServerOptions
from edge.server.wire import ChatBody, CompletionBody, Sampling

_N_SEEDS = 0xFFFFFFFE  # the engine's seeds; OpenAI's are any 64-bit numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one HTTP request asks for: an engine request for each choice, and the form of the answer."""

    requests: Sequence[ChatRequest | CompletionRequest]
    n_per_prompt: int
    stream: bool
    include_usage: bool
    deadline_s: float
    echo: Sequence[str] = ()  # what each choice's text begins with, where the prompt is to be repeated


def chat_asked(body: ChatBody, options: ServerOptions) -> Asked:
    """Raises ApiError for what cannot be honoured."""
    _refuse_unsupported(body, _CHAT_UNSUPPORTED)
    tools, choice = _tools(body)
    check_schemas(tools, "tools")
    if body.response_format is not None:
        check_schemas(body.response_format, "response_format")
    if body.top_logprobs and not body.logprobs:
        raise refuse("top_logprobs is given without logprobs: true", param="top_logprobs")
    messages = [message.model_dump(exclude_none=True) for message in body.messages]
    n = _n_answers(body, options)
    return _asked(
        body,
        options,
        [
            ChatRequest(
                messages=messages,
                tools=tools,
                tool_choice=choice,
                max_tokens=body.max_completion_tokens or body.max_tokens or options.max_tokens,
                sampling=_sampling(body, i),
                parallel_tool_calls=body.parallel_tool_calls is not False,
                stop=_stop(body),
                enable_thinking=_thinking(body),
                response_format=body.response_format,
                call_progress=bool(body.stream and body.stream_tool_arguments),
                logprobs=bool(body.logprobs),
                top_logprobs=body.top_logprobs or 0,
            )
            for i in range(n)
        ],
    )


def completion_asked(body: CompletionBody, options: ServerOptions) -> Asked:
    """Raises ApiError for what cannot be honoured."""
    _refuse_unsupported(body, _COMPLETION_UNSUPPORTED)
    prompts = _prompts(body.prompt)
    n = _n_answers(body, options)
    if len(prompts) * n > options.max_answers:
        raise refuse(
            f"{len(prompts)} prompts with n={n}; allowed are {options.max_answers} answers", param="prompt"
        )
    if body.echo and not all(isinstance(prompt, str) for prompt in prompts):
        raise refuse("echo repeats a text; the prompt is given as tokens", param="echo")
    requests = [
        CompletionRequest(
            prompt=prompt,
            max_tokens=body.max_tokens or 16,  # OpenAI's default here
            sampling=_sampling(body, i),
            stop=_stop(body),
            logprobs=body.logprobs is not None,
            top_logprobs=body.logprobs or 0,
        )
        for prompt in prompts
        for i in range(n)
    ]
    echo = [str(request.prompt) for request in requests] if body.echo else []
    return _asked(body, options, requests, echo=echo)


def _asked(
    body: Sampling,
    options: ServerOptions,
    requests: Sequence[ChatRequest | CompletionRequest],
    *,
    echo: Sequence[str] = (),
) -> Asked:
    return Asked(
        requests=requests,
        n_per_prompt=body.n or 1,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        deadline_s=min(body.deadline_s or options.deadline_s, options.deadline_s),
        echo=echo,
    )


def _sampling(body: Sampling, index: int) -> SamplingOptions:
    """index: of the answer among several to one request; each draws differently."""
    given = {"top_p": body.top_p, "top_k": body.top_k, "min_p": body.min_p}
    seed = None if body.seed is None else (body.seed + index) % _N_SEEDS
    chosen = {name: value for name, value in given.items() if value is not None}
    return SamplingOptions(temperature=body.temperature, seed=seed, **chosen)  # type: ignore[arg-type]


def _stop(body: Sampling) -> Sequence[str]:
    if body.stop is None:
        return ()
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)


def _n_answers(body: Sampling, options: ServerOptions) -> int:
    n = body.n or 1
    if n > options.max_answers:
        raise refuse(f"n is {n}; this server allows 1 to {options.max_answers}", param="n")
    return n


def _prompts(prompt: str | list[int] | list[str] | list[list[int]]) -> Sequence[str | Sequence[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise refuse("the prompt is an empty list", param="prompt")
    if isinstance(prompt[0], int):
        return [prompt]
    return prompt


def _thinking(body: ChatBody) -> bool | None:
    if body.chat_template_kwargs is not None and body.chat_template_kwargs.enable_thinking is not None:
        return body.chat_template_kwargs.enable_thinking
    return False if body.reasoning_effort == "none" else None


def _tools(body: ChatBody) -> tuple[Sequence[Mapping[str, object]], str | Mapping[str, object]]:
    """The tools and the choice among them, with OpenAI's `allowed_tools` resolved."""
    tools, choice = body.tools or [], body.tool_choice or "auto"
    if isinstance(choice, str):
        return tools, choice
    if choice.get("type") == "allowed_tools":
        return _allowed(tools, choice.get("allowed_tools"))
    return tools, _named(choice, "tool_choice")


def _named(choice: Mapping[str, object], param: str) -> str:
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or choice.get("type", "function") != "function":
        example = '{"type": "function", "function": {"name": "..."}}'
        raise refuse(f"{param} is an object that names no function; e.g. {example}", param=param)
    if name in ("auto", "none", "required"):
        raise refuse(f"a tool called {name!r} cannot be chosen by name", param=param)
    return name


def _allowed(
    tools: Sequence[Mapping[str, object]], allowed: object
) -> tuple[Sequence[Mapping[str, object]], str]:
    mode = allowed.get("mode") if isinstance(allowed, Mapping) else None
    entries = allowed.get("tools") if isinstance(allowed, Mapping) else None
    if mode not in ("auto", "required") or not isinstance(entries, list) or not entries:
        raise refuse("tool_choice.allowed_tools needs a mode (auto, required) and tools", param="tool_choice")
    names = {
        _named(entry if isinstance(entry, Mapping) else {}, "tool_choice.allowed_tools") for entry in entries
    }
    chosen = [tool for tool in tools if _tool_name(tool) in names]
    if len(chosen) < len(names):
        missing = min(names - {_tool_name(tool) for tool in chosen if isinstance(tool, Mapping)}, key=str)
        raise refuse(f"tool_choice allows {missing!r}, which is not among the tools", param="tool_choice")
    return chosen, str(mode)


def _tool_name(tool: Mapping[str, object]) -> object:
    function = tool.get("function", tool)
    return function.get("name") if isinstance(function, Mapping) else None


# Names with the values that ask for nothing. What is not here and has no effect on the answer is let through.
_CHAT_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "modalities": (None, [], ["text"]),
    "functions": (None, []),
    "function_call": (None, "none"),
    "audio": (None,),
    "web_search_options": (None,),
}
_COMPLETION_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "suffix": (None, ""),
    "best_of": (None, 1),
}


def _refuse_unsupported(body: Sampling, unsupported: Mapping[str, tuple[object, ...]]) -> None:
    for name, harmless in unsupported.items():
        if getattr(body, name) not in harmless:
            raise refuse(
                f"{name} is not supported by this server; leave it out",
                param=name,
                code="unsupported_parameter",
            )
