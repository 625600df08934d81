"""Phase 2: the model acts with the chosen tools alone, until it calls Finish. The agent loop does the work."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from edge.errors import ContextOverflow, OpenWorldError, ToolsError
from edge.grammar import compile_tool
from edge.tools.agent import AgentDone, AgentEvent, AgentOptions, ToolFinished, run_agent
from edge.tools.executable import Arguments, CallContext, ExecutableTool, ToolResult
from edge.tools.open_world.finding import (
    ChatEngine,
    Chosen,
    FindingEvent,
    Searcher,
    find_tools,
)
from edge.tools.open_world.profile import Finish, OpenWorldProfile
from edge.tools.policy import Policy
from edge.tools.retrieval.catalogue import CatalogueTool
from edge.tools.toolbox import Toolbox
from edge.types import Message, Reply, Tool, ToolCall

# finished: Finish gave an answer. gave_up: Finish said so. answered: text without Finish, which ToolBench counts as
# unsolved. no_tools: nothing was found to act with. overflow: the tools or the results did not fit the context.
Outcome: TypeAlias = Literal[
    "finished",
    "gave_up",
    "answered",
    "step_limit",
    "repeated_call",
    "length",
    "interrupted",
    "no_tools",
    "overflow",
]
Runnable: TypeAlias = Callable[[CatalogueTool], ExecutableTool | None]
_GIVE_ANSWER, _GIVE_UP = "give_answer", "give_up_and_restart"


@dataclass(frozen=True, slots=True)
class CallMade:
    """A call of the second phase. valid: it named a chosen tool with arguments of its schema. ok: it gave no error."""

    call: ToolCall
    result: ToolResult
    valid: bool
    ok: bool


@dataclass(frozen=True, slots=True)
class OpenWorldDone:
    """The last event: how it ended, what was answered, and what led there."""

    outcome: Outcome
    answer: str
    chosen: Chosen
    calls: tuple[CallMade, ...]
    n_steps: int  # of the second phase
    n_malformed: (
        int  # of the steps: calls that were none, and answers without Finish that the model was told of
    )
    n_malformed_calls: int


OpenWorldEvent: TypeAlias = FindingEvent | AgentEvent | OpenWorldDone


def run_open_world(
    engine: ChatEngine,
    question: str,
    searcher: Searcher,
    runnable: Runnable,
    policy: Policy,
    profile: OpenWorldProfile,
    *,
    options: AgentOptions | None = None,
) -> Iterator[OpenWorldEvent]:
    """Both phases: finds tools in the open, then acts with them. Events until an `OpenWorldDone`.

    runnable: gives a chosen tool the function behind it; None for one that cannot be run, which is left out.
    options: as for `run_agent`; its limits are replaced by the profile's.
    """
    options = options or AgentOptions()
    chosen = yield from _passed_on(find_tools(engine, options.request, question, searcher, profile))
    yield from act(engine, question, chosen, runnable, policy, profile, options=options)


def _passed_on(events: Iterator[FindingEvent]) -> Generator[OpenWorldEvent, None, Chosen]:
    for event in events:
        yield event
        if isinstance(event, Chosen):
            return event
    raise AssertionError("the first phase ends with Chosen")


def given(tools: Sequence[CatalogueTool]) -> Chosen:
    """The setting with an API list: these tools, and no search."""
    return Chosen(tuple(tools), "chosen", 0, 0, 0, tuple(tool.id for tool in tools))


def act(
    engine: ChatEngine,
    question: str,
    chosen: Chosen,
    runnable: Runnable,
    policy: Policy,
    profile: OpenWorldProfile,
    *,
    options: AgentOptions | None = None,
) -> Iterator[OpenWorldEvent]:
    """The second phase alone. Raises OpenWorldError where a chosen tool is called like Finish."""
    tools = Toolbox()
    for tool in filter(None, map(runnable, chosen.tools)):
        if tool.name == profile.finish.name:
            raise OpenWorldError(
                f"a tool is called {tool.name!r}, which ends the phase; rename it in the profile"
            )
        with suppress(ToolsError):  # a schema that calls cannot be held to
            tools.add(tool)
    return _Acting(engine, question, chosen, tools, policy, profile, options or AgentOptions()).events()


@dataclass(slots=True)
class _Acting:
    engine: ChatEngine
    question: str
    chosen: Chosen
    tools: Toolbox
    policy: Policy
    profile: OpenWorldProfile
    options: AgentOptions
    messages: list[Message] = field(default_factory=list)
    calls: list[CallMade] = field(default_factory=list)
    n_steps: int = 0
    n_unfinished: int = 0  # answers without Finish
    n_malformed_calls: int = 0
    ending: Arguments | None = None  # of Finish

    def events(self) -> Iterator[OpenWorldEvent]:
        if not len(self.tools):
            yield self._done("no_tools", "")
            return
        self.tools.add(_finish_tool(self.profile.finish))
        self.messages += [
            {"role": "system", "content": self.profile.prompts.execution},
            {"role": "user", "content": self.question},
        ]
        while True:
            try:
                outcome, answer = yield from self._run()
            except ContextOverflow:
                outcome, answer = "overflow", ""
            if outcome != "answered":
                break
            self.n_unfinished += 1
            if self.n_unfinished > self.profile.max_faults or self.n_steps >= self.profile.max_steps:
                break
            self.messages.append({"role": "user", "content": self.profile.prompts.invalid_step})
        yield self._done(outcome, answer)

    def _run(self) -> Generator[OpenWorldEvent, None, tuple[Outcome, str]]:
        """The agent loop until Finish, or until it ends by itself."""
        options = replace(
            self.options,
            max_steps=self.profile.max_steps - self.n_steps,
            max_result_chars=self.profile.max_observation_chars,
            final_answer=False,
        )
        events = run_agent(self.engine, self.messages, self.tools, self.policy, options)
        try:
            for event in events:
                yield event
                self._note(event)
                if self.ending is not None:
                    return self._ended(self.ending)
                if isinstance(event, AgentDone):
                    return self._stopped(event)
        finally:
            if isinstance(events, Generator):
                events.close()
        raise AssertionError("the agent loop ends with AgentDone")

    def _note(self, event: AgentEvent) -> None:
        if isinstance(event, Reply):
            self.n_steps += 1
            self.n_malformed_calls += len(event.malformed_calls)
        elif isinstance(event, ToolFinished):
            if event.call.name == self.profile.finish.name:
                self.ending = event.call.arguments
            else:
                self.calls.append(self._made(event))

    def _made(self, event: ToolFinished) -> CallMade:
        tool = self.tools.get(event.call.name)
        valid = tool is not None and compile_tool(tool.tool).validate(event.call.arguments) is None
        return CallMade(event.call, event.result, valid, event.started and not event.result.is_error)

    def _ended(self, arguments: Arguments) -> tuple[Outcome, str]:
        answer = str(arguments.get("final_answer") or "")
        return ("finished" if arguments.get("return_type") == _GIVE_ANSWER else "gave_up"), answer

    def _stopped(self, done: AgentDone) -> tuple[Outcome, str]:
        content = done.reply.content if done.reply else ""
        if done.reason == "answer":
            return "answered", content
        return done.reason, content

    def _done(self, outcome: Outcome, answer: str) -> OpenWorldDone:
        return OpenWorldDone(
            outcome,
            answer,
            self.chosen,
            tuple(self.calls),
            self.n_steps,
            self.n_unfinished + self.n_malformed_calls,
            self.n_malformed_calls,
        )


def _finish_tool(finish: Finish) -> ExecutableTool:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"return_type": {"enum": [_GIVE_ANSWER, _GIVE_UP]}, "final_answer": {"type": "string"}},
        "required": ["return_type"],
        "additionalProperties": False,
    }

    def call(arguments: Arguments, context: CallContext) -> str:
        return "done"

    return ExecutableTool(tool=Tool(finish.name, schema, finish.description), call=call, source="open-world")
