"""Runs both phases over a file of requests with known tools, and counts what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from edge.errors import OpenWorldError, RetrievalError
from edge.tools.agent import AgentOptions
from edge.tools.executable import ExecutableTool
from edge.tools.open_world.acting import OpenWorldDone, OpenWorldEvent, act, given, run_open_world
from edge.tools.open_world.finding import ChatEngine
from edge.tools.open_world.profile import OpenWorldProfile
from edge.tools.open_world.simulator import Recording, Simulator
from edge.tools.policy import Policy
from edge.tools.retrieval.catalogue import CatalogueTool, json_rows, read_bytes
from edge.tools.retrieval.index import ToolIndex


@dataclass(frozen=True, slots=True)
class Episode:
    """A request, the ids of the tools that it needs, and what these once answered."""

    id: str
    query: str
    gold: tuple[str, ...]
    recordings: tuple[Recording, ...] = ()


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """What became of a request."""

    episode: Episode
    done: OpenWorldDone

    @property
    def gold_recall(self) -> float:
        """The share of the needed tools that were chosen."""
        chosen = {tool.id for tool in self.done.chosen.tools}
        return len(chosen & set(self.episode.gold)) / len(self.episode.gold)

    @property
    def gold_found(self) -> float:
        """The share of the needed tools that any search showed."""
        return len(set(self.done.chosen.found) & set(self.episode.gold)) / len(self.episode.gold)


@dataclass(frozen=True, slots=True)
class OpenWorldReport:
    """Means over the requests; shares of what does not occur are None.

    rounds: searches. format_rate: steps of both phases that were well-formed. finish_rate: requests that Finish
    ended with an answer. call_validity: calls whose name and arguments were valid, of all that were written.
    call_success: valid calls without an error in the answer.
    """

    n_episodes: int
    rounds: float
    format_rate: float | None
    finish_rate: float
    gold_recall: float
    gold_found: float
    calls: float
    call_validity: float | None
    call_success: float | None
    outcomes: dict[str, int]
    choices: dict[str, int]


class IndexSearcher:
    """A catalogue's index as what a model searches. The first of tools of one name stands for all of them."""

    def __init__(self, index: ToolIndex) -> None:
        self._index = index

    def find(self, query: str, k: int) -> Sequence[CatalogueTool]:
        """The k tools that fit best, best first."""
        return [hit.entry for hit in self._index.search(query, k)]


def read_episodes(path: Path, known_ids: Sequence[str]) -> list[Episode]:
    """The requests of a file of `{"query", "relevant": [id, ...]}`. Raises OpenWorldError naming the line.

    `responses`, if given, are `{"name", "arguments", "response"}` of calls whose answers are known.
    """
    where, known = f"the requests {path}", set(known_ids)
    try:
        rows = list(json_rows(read_bytes(path, "requests"), where))
    except RetrievalError as exc:
        raise OpenWorldError(str(exc)) from None
    if not rows:
        raise OpenWorldError(
            f'{where} are empty; lines of {{"query": ..., "relevant": [id, ...]}} are needed'
        )
    return [_episode(value, place, known, n) for n, (place, value) in enumerate(rows)]


def _episode(value: object, place: str, known: set[str], number: int) -> Episode:
    if not isinstance(value, Mapping):
        raise OpenWorldError(f'{place} is no object; {{"query": ..., "relevant": [id, ...]}} is needed')
    query, gold = value.get("query"), value.get("relevant")
    if not isinstance(query, str) or not query.strip():
        raise OpenWorldError(f"{place}: query is missing or empty; a text is needed")
    if not isinstance(gold, list) or not gold or not all(isinstance(name, str) for name in gold):
        raise OpenWorldError(f"{place}: relevant is no list of tool ids; at least one is needed")
    if unknown := [name for name in gold if name not in known]:
        raise OpenWorldError(f"{place}: relevant names {unknown[0]!r}, which is not in the catalogue")
    responses = value.get("responses", [])
    if not isinstance(responses, list):
        raise OpenWorldError(f"{place}: responses is no list")
    recordings = tuple(_recording(row, place) for row in responses)
    return Episode(str(value.get("id", number)), query, tuple(dict.fromkeys(gold)), recordings)


def _recording(row: object, place: str) -> Recording:
    name, arguments = (row.get("name"), row.get("arguments")) if isinstance(row, Mapping) else (None, None)
    if not isinstance(row, Mapping) or not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise OpenWorldError(f'{place}: a response is {{"name", "arguments": {{...}}, "response"}}')
    return Recording(name, arguments, row.get("response"))


def evaluate(
    engine: ChatEngine,
    index: ToolIndex,
    episodes: Sequence[Episode],
    profile: OpenWorldProfile,
    *,
    options: AgentOptions | None = None,
    with_api_list: bool = False,
    error_rate: float = 0.0,
    progress: Callable[[EpisodeResult], None] = lambda result: None,
) -> list[EpisodeResult]:
    """The result of each request. with_api_list: the needed tools are given, and nothing is searched."""
    options = options or AgentOptions()
    results = []
    for episode in episodes:
        simulator = Simulator(episode.recordings, error_rate=error_rate)
        events = _events(engine, index, episode, profile, options, simulator, with_api_list=with_api_list)
        done = next(event for event in events if isinstance(event, OpenWorldDone))
        results.append(EpisodeResult(episode, done))
        progress(results[-1])
    return results


def _events(
    engine: ChatEngine,
    index: ToolIndex,
    episode: Episode,
    profile: OpenWorldProfile,
    options: AgentOptions,
    simulator: Simulator,
    *,
    with_api_list: bool,
) -> Iterator[OpenWorldEvent]:
    policy = Policy(default="allow")

    def runnable(entry: CatalogueTool) -> ExecutableTool:
        return simulator.executable(entry.tool)

    if with_api_list:
        chosen = given(index.entries(episode.gold))
        return act(engine, episode.query, chosen, runnable, policy, profile, options=options)
    searcher = IndexSearcher(index)
    return run_open_world(engine, episode.query, searcher, runnable, policy, profile, options=options)


def summarize(results: Sequence[EpisodeResult]) -> OpenWorldReport:
    """The means of results, of which there is at least one."""
    done = [result.done for result in results]
    n_steps = sum(d.chosen.n_steps + d.n_steps for d in done)
    n_faults = sum(d.chosen.n_faults + d.n_malformed for d in done)
    calls = [call for d in done for call in d.calls]
    n_written = len(calls) + sum(d.n_malformed_calls for d in done)
    n_valid = sum(call.valid for call in calls)
    return OpenWorldReport(
        n_episodes=len(done),
        rounds=fmean(d.chosen.n_rounds for d in done),
        format_rate=_share(n_steps - n_faults, n_steps),
        finish_rate=fmean(d.outcome == "finished" for d in done),
        gold_recall=fmean(result.gold_recall for result in results),
        gold_found=fmean(result.gold_found for result in results),
        calls=len(calls) / len(done),
        call_validity=_share(n_valid, n_written),
        call_success=_share(sum(call.ok for call in calls), n_valid),
        outcomes=dict(Counter(d.outcome for d in done)),
        choices=dict(Counter(d.chosen.how for d in done)),
    )


def _share(n: int, of: int) -> float | None:
    return n / of if of else None
