"""What one chat request asks for, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge.engine.model import Vocabulary
from edge.engine.native import llama
from edge.engine.sampling import SamplingOptions
from edge.engine.text_constraint import TextRules
from edge.errors import RequestError, UnsupportedSchema
from edge.grammar import CompiledTool, compile_schema, compile_tool, parse_tools
from edge.types import Message, Schema, Tool

DEFAULT_MAX_TOKENS = 512
_MAX_GBNF_CHARS, _MAX_GBNF_DEPTH = 200_000, 200
MAX_TOP_LOGPROBS = 20  # OpenAI's
MAX_CALLS = 16  # per answer; a model that repeats one call would otherwise do so until max_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One answer to one conversation.

    tools: `Tool` values or OpenAI-style dicts.
    revealed_tools: may be called too, but the template is not given them: the caller has described them in a message,
        so that a tool that turns up later leaves the prompt's beginning as it was.
    tool_choice: auto, none, required, or the name of a tool (OpenAI's object form too).
    parallel_tool_calls: several calls in one answer, up to MAX_CALLS; otherwise it ends behind the first.
    max_tokens: completion tokens at most; a call that does not fit is withdrawn, not cut.
    response_format: OpenAI's, `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {"schema": ...}}`;
        the answer is then that JSON and calls no tool. It is broken off where max_tokens ends it.
    gbnf: the same for a grammar of the caller's own, in llama.cpp's notation.
    grammar: off, calls are parsed and validated but not constrained.
    force_text: what the grammar leaves no choice about is decoded in runs and not sampled.
    cache_prompt: off, nothing of earlier answers is used again. The beginning of a prompt then is computed in the same
        runs each time, so that an answer does not depend on what came before it, not even in the last bit.
    call_progress: tell the text of a call while it is written (`CallProgress`); not of tools with late checks, which
        may take text back.
    logprobs: deltas and reply carry the log probabilities of the content's tokens, and of the `top_logprobs`
        likeliest tokens (0 to 20) at each place.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool | Mapping[str, object]] = ()
    revealed_tools: Sequence[Tool | Mapping[str, object]] = ()
    tool_choice: str | Mapping[str, object] = "auto"
    max_tokens: int = DEFAULT_MAX_TOKENS
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    grammar: bool = True
    force_text: bool = True
    parallel_tool_calls: bool = True
    stop: Sequence[str] = ()
    enable_thinking: bool | None = None
    response_format: Mapping[str, object] | None = None
    gbnf: str | None = None
    cache_prompt: bool = True
    call_progress: bool = False
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """The continuation of a raw prompt, without a chat template: text, or token ids. Tags in it mean nothing.

    Text may name control tokens (`<|im_start|>`). gbnf, stop, logprobs: as of `ChatRequest`.
    """

    prompt: str | Sequence[int]
    max_tokens: int = DEFAULT_MAX_TOKENS
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    stop: Sequence[str] = ()
    gbnf: str | None = None
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The tools of a request, compiled. offered: the template shows them. callable: may be called."""

    offered: tuple[CompiledTool, ...]
    callable: tuple[CompiledTool, ...]
    forced: bool  # the answer begins with a call
    max_calls: int


def plan_tools(request: ChatRequest) -> ToolPlan:
    """Raises ToolsError, UnsupportedSchema or RequestError for tools or a choice that cannot be honoured."""
    check_request(request)
    given = [*request.tools, *request.revealed_tools]
    tools = parse_tools([tool.to_openai() if isinstance(tool, Tool) else tool for tool in given])
    choice = _choice(request.tool_choice)
    compiled = tuple(_compile(tool) for tool in tools)
    offered = compiled[: len(request.tools)]
    max_calls = MAX_CALLS if request.parallel_tool_calls else 1
    if choice == "none":
        return ToolPlan(offered, (), forced=False, max_calls=max_calls)
    if choice == "auto":
        return ToolPlan(offered, compiled, forced=False, max_calls=max_calls)
    if not compiled:
        raise RequestError(f"tool_choice is {choice!r}, but no tools are given")
    if choice == "required":
        return ToolPlan(offered, compiled, forced=True, max_calls=max_calls)
    named = tuple(tool for tool in compiled if tool.tool.name == choice)
    if not named:
        names = ", ".join(tool.tool.name for tool in compiled[:20])
        raise RequestError(f"tool_choice is {choice!r}; allowed are auto, none, required, or one of: {names}")
    return ToolPlan(offered, named, forced=True, max_calls=1)


def _compile(tool: Tool) -> CompiledTool:
    # A schema that is silent about further properties allows any. A call with arguments that nobody declared is a
    # mistake all the same, and each free name is a place where a small model loses its way.
    try:
        return compile_tool(tool, declared_only=True)
    except UnsupportedSchema:
        return compile_tool(tool)  # it may ask for more properties than it names


def check_request(request: ChatRequest) -> None:
    """Raises RequestError for a number or text outside its range."""
    _check_limits(request)
    if not request.messages:
        raise RequestError("there are no messages; at least one is needed")


def check_completion(request: CompletionRequest) -> None:
    """Raises RequestError for a number or text outside its range."""
    _check_limits(request)


def _check_limits(request: ChatRequest | CompletionRequest) -> None:
    if request.max_tokens < 1:
        raise RequestError(f"max_tokens is {request.max_tokens}; at least 1 is needed")
    if not 0 <= request.top_logprobs <= MAX_TOP_LOGPROBS:
        raise RequestError(f"top_logprobs is {request.top_logprobs}; allowed is 0 to {MAX_TOP_LOGPROBS}")
    request.sampling.check()
    for stop in request.stop:
        if not isinstance(stop, str) or not stop:
            raise RequestError(f"a stop string is {stop!r}; non-empty texts are allowed")


def check_token_ids(token_ids: Sequence[int], vocab: Vocabulary) -> None:
    """Raises RequestError naming the first id that is none of this vocabulary: llama.cpp aborts on some of those."""
    for i, token_id in enumerate(token_ids):
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < vocab.n_tokens:
            raise RequestError(f"token {i} is {token_id!r}; allowed are ids from 0 to {vocab.n_tokens - 1}")


def _choice(choice: str | Mapping[str, object]) -> str:
    if isinstance(choice, str):
        return choice
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(
            'tool_choice is an object without function.name; e.g. {"function": {"name": "..."}}'
        )
    return name


def text_rules(request: ChatRequest) -> TextRules | None:
    """What the whole answer follows, None for free text.

    Raises RequestError for a format that is none, UnsupportedSchema for a schema that cannot be held.
    """
    chosen = [name for name in ("response_format", "gbnf") if getattr(request, name) is not None]
    schema = _response_schema(request.response_format) if request.response_format is not None else None
    if request.gbnf is None and schema is None:
        return None
    if len(chosen) > 1:
        raise RequestError("response_format and gbnf are both given; one of them decides what the answer is")
    if (request.tools or request.revealed_tools) and request.tool_choice != "none":
        raise RequestError(f"{chosen[0]} and tools are both given; set tool_choice to none, or leave one out")
    if request.gbnf is not None:
        return TextRules(_checked_gbnf(request.gbnf))
    assert schema is not None
    compiled = compile_schema(schema)
    return TextRules(compiled.gbnf, compiled if compiled.late_checks else None)


def completion_rules(request: CompletionRequest) -> TextRules | None:
    """What the continuation follows. Raises RequestError for a grammar that is too large."""
    return None if request.gbnf is None else TextRules(_checked_gbnf(request.gbnf))


def check_gbnf(gbnf: str, vocab: Vocabulary) -> None:
    """Raises RequestError when llama.cpp cannot parse a grammar."""
    sampler = llama().llama_sampler_init_grammar(vocab.pointer, gbnf.encode(), b"root")
    if not sampler:
        raise RequestError("llama.cpp cannot parse the grammar; is there a rule called root?")
    llama().llama_sampler_free(sampler)


def _response_schema(response_format: Mapping[str, object]) -> Schema | None:
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise RequestError(f"response_format.type is {kind!r}; allowed are text, json_object, json_schema")
    wrapped = response_format.get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, Mapping) else None
    if not isinstance(schema, Mapping | bool):
        raise RequestError("response_format.json_schema.schema is missing; a JSON Schema is needed there")
    return schema


def _checked_gbnf(gbnf: str) -> str:
    if not gbnf.strip():
        raise RequestError("the grammar is empty; it needs at least a rule called root")
    # llama.cpp's parser recurses into brackets, on the C stack.
    depth = deepest = 0
    for char in gbnf:
        depth += (char == "(") - (char == ")")
        deepest = max(deepest, depth)
    if len(gbnf) > _MAX_GBNF_CHARS or deepest > _MAX_GBNF_DEPTH:
        raise RequestError(
            f"the grammar has {len(gbnf)} characters and brackets {deepest} deep; "
            f"allowed are {_MAX_GBNF_CHARS} and {_MAX_GBNF_DEPTH}"
        )
    return gbnf
