"""Does the items of a stage on a Ray cluster: one actor a node, its model loaded once, lost workers replaced.

The items and what is done with them are the same as here (`runner`), so the results are too. Files must lie under the
same paths on every node. Results are kept by the machine that drives, as they come in.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from edge.accuracy.errors import CheckError
from edge.accuracy.runner import Runner
from edge.accuracy.stages import Item, Record, Stage
from edge.errors import EdgeError

_MAX_TRIES = 4  # of one item: a case that kills its worker each time must not do so for ever
_MAX_LOSSES = 2  # of one node: one that is dead may be listed as alive for a while
_WAIT_S, _REACH_S = 300.0, 5.0


class StageWorker:
    """What an actor holds: a stage's models, opened once."""

    def __init__(self, stage: Stage) -> None:
        self._stack = ExitStack()
        self._work = self._stack.enter_context(stage.open())

    def run(self, work: Any) -> Record:  # noqa: ANN401 - a stage's own kind of work
        """One item's result; an error of ours as a record, since Ray would bury it in a traceback."""
        try:
            return {"result": self._work(work)}
        except EdgeError as exc:
            return {"error": str(exc)}


@contextmanager
def connected(address: str) -> Iterator[Runner]:
    """A runner on the cluster at `address` ("auto", HOST:PORT, ray://HOST:PORT). Raises CheckError."""
    try:
        import ray
    except ImportError as exc:
        raise CheckError("ray is not installed; install smoltools-edge[ray]") from exc
    _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except Exception as exc:
        raise CheckError(f"there is no Ray cluster at {address}: {str(exc).strip().splitlines()[0]}") from exc
    try:
        yield lambda stage, items: run_on_cluster(ray, stage, items)
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises CheckError where nobody listens: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise CheckError(f"the Ray address is {address!r}; auto, HOST:PORT or ray://HOST:PORT is needed")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except OSError as exc:
        raise CheckError(f"there is no Ray cluster at {address}: {exc}") from None


def run_on_cluster(ray: Any, stage: Stage, items: Sequence[Item]) -> Iterator[tuple[Item, Record]]:  # noqa: ANN401
    """Each item with its result, in the order in which they are done. One item at a time on each node."""
    crew = _Crew(ray, stage)
    waiting, tries = list(reversed(items)), dict.fromkeys((item.key for item in items), 0)
    try:
        while waiting or crew.running:
            crew.fill(len(waiting))
            while waiting and crew.idle:
                crew.start(waiting.pop())
            for item, outcome in crew.finished():
                if outcome is None:  # the worker was lost, and the item with it
                    tries[item.key] += 1
                    if tries[item.key] >= _MAX_TRIES:
                        raise CheckError(f"{stage.name}: workers were lost {_MAX_TRIES} times at {item.key}")
                    waiting.append(item)
                elif "error" in outcome:
                    raise CheckError(f"{stage.name}: {outcome['error']}")
                else:
                    yield item, outcome["result"]
    finally:
        crew.dismiss()


class _Crew:
    """The actors of a stage: one on each node that is alive, replaced when one is lost."""

    def __init__(self, ray: Any, stage: Stage) -> None:  # noqa: ANN401
        self._ray, self._stage = ray, ray.put(stage)
        self._name = stage.name
        self._actors: dict[str, Any] = {}  # by node
        self._losses: Counter[str] = Counter()  # by node
        self.idle: list[str] = []
        self.running: dict[Any, tuple[str, Item]] = {}

    def fill(self, n_waiting: int) -> None:
        """Starts an actor on every node that has none, as far as there is work for it."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [
            node["NodeID"]
            for node in self._ray.nodes()
            if node["Alive"]
            and node["Resources"].get("CPU", 0) >= 1
            and self._losses[node["NodeID"]] < _MAX_LOSSES
        ]
        if not nodes and not self._actors:
            raise CheckError(f"{self._name}: the cluster has no node left that could work")
        for node in nodes:
            if node in self._actors or len(self._actors) >= len(self.running) + n_waiting:
                continue
            where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
            actor = self._ray.remote(StageWorker).options(num_cpus=1, scheduling_strategy=where)
            self._actors[node] = actor.remote(self._stage)
            self.idle.append(node)

    def start(self, item: Item) -> None:
        """Gives an item to an idle actor."""
        node = self.idle.pop()
        self.running[self._actors[node].run.remote(item.work)] = (node, item)

    def finished(self) -> Iterator[tuple[Item, Record | None]]:
        """Waits for at least one item; None in place of a result whose worker was lost."""
        from ray.exceptions import RayActorError, RayError, RayTaskError

        done, _ = self._ray.wait(list(self.running), num_returns=1, timeout=_WAIT_S)
        for reference in done:
            node, item = self.running.pop(reference)
            try:
                outcome = self._ray.get(reference)
            except RayTaskError as exc:
                raise CheckError(f"{self._name}: a worker failed: {_last_line(exc)}") from exc
            except RayActorError as exc:
                if "error raised in its creation task" in str(exc):
                    raise CheckError(f"{self._name}: a worker cannot start: {_last_line(exc)}") from exc
                self._lose(node)
                yield item, None
                continue
            except RayError:
                self._lose(node)
                yield item, None
                continue
            self.idle.append(node)
            yield item, outcome

    def _lose(self, node: str) -> None:
        self._losses[node] += 1
        actor = self._actors.pop(node, None)
        if actor is not None:
            self._ray.kill(actor)  # it may be half alive

    def dismiss(self) -> None:
        """Ends all actors."""
        for node in list(self._actors):
            self._lose(node)


def _last_line(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
