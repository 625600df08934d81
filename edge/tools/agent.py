"""The agent loop: the model calls, the policy decides, the tools run, the results go back, until there is an answer.

`run_agent` appends to the caller's list of messages, which stays a conversation that can go on whatever happens: after
Ctrl-C, after the generator was closed, and after an error each call has a result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from edge.engine.request import ChatRequest
from edge.errors import ContextOverflow, EngineError, RequestError
from edge.tools.executable import ASKED_EFFECTS, ExecutableTool, ToolResult
from edge.tools.policy import Policy
from edge.tools.running import STOPPED, Batch, Finished, Progress
from edge.tools.text import bounded, for_model
from edge.tools.toolbox import Toolbox
from edge.types import ContentDelta, Event, Message, Reply, Tool, ToolCall

Answer: TypeAlias = Literal["yes", "no", "always"]
StopReason: TypeAlias = Literal["answer", "step_limit", "repeated_call", "length", "interrupted"]
_MIN_RESULT_CHARS = 200
DEFAULT_MAX_STEPS = 12


class ChatEngine(Protocol):
    """The part of an `Engine` that the loop needs."""

    def stream(self, request: ChatRequest) -> Iterator[Event]:
        """The answer as it is made; the last event is the `Reply`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """How a run goes.

    request: sampling, max_tokens and so on of every step; its messages and tools are replaced. Its tool_choice holds
        for the first step, later ones are free to answer.
    max_steps: answers of the model with calls in them, at most.
    max_result_chars: of one result that the model sees.
    approve: asks the user about a call; None: what would be asked is denied.
    final_answer: after the step limit or a repeated call the model is asked once more, without calls.
    """

    request: ChatRequest = field(default_factory=lambda: ChatRequest(messages=()))
    max_steps: int = DEFAULT_MAX_STEPS
    max_result_chars: int = 8_000
    approve: Callable[[ToolCall, ExecutableTool], Answer] | None = None
    final_answer: bool = True

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_result_chars"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}; at least 1 is needed")


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The first event: the conversation, the tools as they are now, and how the run goes."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    options: AgentOptions


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A call was allowed and runs. why: what allowed it."""

    call: ToolCall
    why: str


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """A running call reported how far it is."""

    call: ToolCall
    text: str


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A call has the result that the model will see. started: it ran; otherwise it was denied or refused."""

    call: ToolCall
    result: ToolResult
    started: bool = True
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AgentDone:
    """The last event. reply: the model's last answer, if it gave one."""

    reason: StopReason
    reply: Reply | None
    n_steps: int


AgentEvent: TypeAlias = Event | AgentStarted | ToolStarted | ToolProgress | ToolFinished | AgentDone


def run_agent(
    engine: ChatEngine,
    messages: list[Message],
    toolbox: Toolbox,
    policy: Policy,
    options: AgentOptions | None = None,
) -> Iterator[AgentEvent]:
    """Events until an `AgentDone`; messages grows by what was said and done.

    The model's events (text, calls, a `Reply` for each step) come between those of the tools. A Ctrl-C that arrives
    in here stops the tool or the answer, and ends the run with reason interrupted.
    """
    return _Run(engine, messages, toolbox, policy, options or AgentOptions()).events()


@dataclass(slots=True)
class _Run:
    engine: ChatEngine
    messages: list[Message]
    toolbox: Toolbox
    policy: Policy
    options: AgentOptions
    reply: Reply | None = None
    n_steps: int = 0
    seen: set[str] = field(default_factory=set)  # calls since the last one that changed something
    always: set[tuple[str, str]] = field(default_factory=set)

    def events(self) -> Iterator[AgentEvent]:
        yield AgentStarted(tuple(self.messages), self.toolbox.tools, self.options)
        try:
            reason: StopReason = yield from self._steps()
            if reason in ("step_limit", "repeated_call") and self.options.final_answer:
                yield from self._ask("none")
        except KeyboardInterrupt:
            reason = "interrupted"
        yield AgentDone(reason, self.reply, self.n_steps)

    def _steps(self) -> Generator[AgentEvent, None, StopReason]:
        choice: str | Mapping[str, object] = self.options.request.tool_choice
        while self.n_steps < self.options.max_steps:
            yield from self._ask(choice)
            choice = "auto" if self.toolbox.tools else "none"
            reply = self.reply
            assert reply is not None
            if not reply.tool_calls and not reply.malformed_calls:
                return "length" if reply.finish_reason == "length" else "answer"
            self.n_steps += 1
            repeated = yield from self._act(reply)
            if repeated:
                return "repeated_call"
        return "step_limit"

    def _ask(self, tool_choice: str | Mapping[str, object]) -> Generator[AgentEvent, None, None]:
        """One answer of the model; it is in `messages` afterwards, as far as it got."""
        self.reply = None
        said: list[str] = []
        stream = self._open_stream(tool_choice)
        stopped = True
        try:
            for event in stream:
                if isinstance(event, ContentDelta):
                    said.append(event.text)
                elif isinstance(event, Reply):
                    self.reply = event
                    self.messages.append(assistant_message(event))
                yield event
            stopped = False
        finally:
            if isinstance(stream, Generator):
                stream.close()
            if self.reply is None and (stopped or said):
                self.messages.append({"role": "assistant", "content": "".join(said)})
        if self.reply is None:
            raise EngineError("the generation ended without a reply")

    def _open_stream(self, tool_choice: str | Mapping[str, object]) -> Iterator[Event]:
        """The stream of the next answer; results that do not fit the context are cut further first."""
        while True:
            tools = self.toolbox.tools
            request = replace(
                self.options.request, messages=list(self.messages), tools=tools, tool_choice=tool_choice
            )
            try:
                return self.engine.stream(request)
            except ContextOverflow:
                if not self._halve_longest_result():
                    raise

    def _halve_longest_result(self) -> bool:
        """Cuts the longest of the newest results in half; False when none is worth cutting."""
        newest: list[int] = []
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index].get("role") != "tool":
                break
            newest.append(index)
        longest = max(newest, key=lambda index: len(_content(self.messages[index])), default=None)
        if longest is None or len(_content(self.messages[longest])) <= _MIN_RESULT_CHARS:
            return False
        content = _content(self.messages[longest])
        shorter = f"{content[: len(content) // 2 - 50]}\n[cut: it did not fit the context]"
        self.messages[longest] = {**self.messages[longest], "content": shorter}
        return True

    def _act(self, reply: Reply) -> Generator[AgentEvent, None, bool]:
        """Decides about and runs the calls of an answer; True when all of them were made before."""
        results: dict[int, ToolResult] = {}
        try:
            fresh = [index for index, call in enumerate(reply.tool_calls) if _key(call) not in self.seen]
            batch = yield from self._decide(reply.tool_calls, results)
            yield from self._execute(reply.tool_calls, batch, results)
        finally:
            self._remember(reply, results)
        return bool(reply.tool_calls) and not fresh

    def _decide(
        self, calls: Sequence[ToolCall], results: dict[int, ToolResult]
    ) -> Generator[AgentEvent, None, list[tuple[int, ExecutableTool]]]:
        """The calls that may run, by index; the others get their results here."""
        batch: list[tuple[int, ExecutableTool]] = []
        first: dict[str, int] = {}
        for index, call in enumerate(calls):
            key = _key(call)
            tool = self.toolbox.get(call.name)
            if key in self.seen:
                refusal: str | None = (
                    "not run: this exact call was made before and its result is above; use it"
                )
            elif first.setdefault(key, index) != index:
                refusal = "not run: the same call stands in this answer already"
            elif tool is None:
                names = ", ".join(t.name for t in self.toolbox.tools)
                refusal = f"there is no tool {call.name!r}; there are: {names}"
            else:
                allowed, why = self._permission(call, tool)
                refusal = None if allowed else why
                if allowed:
                    batch.append((index, tool))
                    yield ToolStarted(call, why)
            if refusal is not None:
                results[index] = ToolResult(refusal, is_error=True)
                yield ToolFinished(call, results[index], started=False)
        return batch

    def _permission(self, call: ToolCall, tool: ExecutableTool) -> tuple[bool, str]:
        action, why = self.policy.decide(tool, call.arguments)
        if action == "deny":
            return False, f"denied by {why}; do not try it again"
        if action == "allow" or (tool.source, tool.name) in self.always:
            return True, why if action == "allow" else "the user allowed it for this run"
        if self.options.approve is None:
            return False, "denied: this call needs the user's approval, and there is nobody who can be asked"
        answer = self.options.approve(call, tool)
        if answer == "always":
            self.always.add((tool.source, tool.name))
        if answer == "no":
            return False, "denied: the user said no to this call"
        return True, "the user allowed it"

    def _execute(
        self,
        calls: Sequence[ToolCall],
        batch: Sequence[tuple[int, ExecutableTool]],
        results: dict[int, ToolResult],
    ) -> Generator[AgentEvent, None, None]:
        """Runs the allowed calls side by side."""
        if any(tool.effects & ASKED_EFFECTS for _, tool in batch):
            self.seen.clear()  # what was read before may read differently now
        self.seen.update(_key(calls[index]) for index, _ in batch)
        running = Batch()
        try:
            for index, tool in batch:
                running.start(str(index), calls[index], tool)
            for report in running.reports():
                if isinstance(report, Progress):
                    yield ToolProgress(report.call, for_model(report.text))
                else:
                    yield self._finish(report, results)
        except KeyboardInterrupt:
            for report in running.cancel():
                yield self._finish(report, results)
            raise
        finally:
            running.cancel()

    def _finish(self, report: Finished, results: dict[int, ToolResult]) -> ToolFinished:
        clean = ToolResult(for_model(report.result.text), report.result.is_error, report.result.cut)
        result = results[int(report.key)] = bounded(clean, self.options.max_result_chars)
        return ToolFinished(report.call, result, seconds=report.seconds)

    def _remember(self, reply: Reply, results: Mapping[int, ToolResult]) -> None:
        """Puts a result for each call behind the answer, whatever became of the calls."""
        for index, call in enumerate(reply.tool_calls):
            self.messages.append(result_message(call, results.get(index, STOPPED)))
        for malformed in reply.malformed_calls:
            text = f"error: that was no valid call ({for_model(malformed.reason)}); write it again or answer"
            self.messages.append({"role": "tool", "content": text})


def assistant_message(reply: Reply) -> Message:
    """A finished answer as the model will be shown it."""
    message: dict[str, object] = {"role": "assistant", "content": reply.content}
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reply.tool_calls
        ]
    return message


def result_message(call: ToolCall, result: ToolResult) -> Message:
    """A result as the model will be shown it; errors say that they are."""
    text = f"error: {result.text}" if result.is_error else result.text
    return {"role": "tool", "name": call.name, "tool_call_id": call.id, "content": text}


def _key(call: ToolCall) -> str:
    return json.dumps([call.name, call.arguments], sort_keys=True)


def _content(message: Message) -> str:
    return str(message.get("content") or "")
