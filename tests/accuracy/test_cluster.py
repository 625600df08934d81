"""Two workers on a local Ray cluster, one of them killed midway. Needs the extra `ray`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from edge.accuracy.check import check
from edge.accuracy.cluster import connected
from edge.accuracy.document import to_document
from edge.accuracy.errors import CheckError
from edge.accuracy.stages import AnswerStage
from tests.accuracy.conftest import gguf_spec
from tests.accuracy.test_check import ANSWERING, options, stored, without_speed

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", ":".join([root, *[p for p in sys.path if p]]))
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    # The driver's own node has no processor to lend: both workers can be lost without it.
    found = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    yield found
    found.shutdown()


@pytest.fixture
def asked(tiny_files, tmp_path):
    return options(tmp_path, gguf_spec(tiny_files["f32"]), gguf_spec(tiny_files["q4_0"]))


def test_a_cluster_that_loses_a_worker_finds_the_same(cluster, asked, few_cases):
    wanted = to_document(check(asked, few_cases))
    elsewhere = dataclasses.replace(asked, work=asked.work.parent / "elsewhere")
    workers = [cluster.add_node(**NODE) for _ in range(2)]
    cluster.wait_for_nodes()
    n_done, nodes_used = 0, set()

    with connected(cluster.address) as run:
        import ray

        def run_and_lose_one(stage, items):
            nonlocal n_done
            for item, record in run(stage, items):
                nodes_used.update(nodes_of_actors())
                n_done += 1
                if n_done == 3:
                    cluster.remove_node(workers.pop(), allow_graceful=False)
                yield item, record

        def nodes_of_actors():
            from ray._private.state import actors

            return {row["Address"]["NodeID"] for row in actors().values() if row["State"] == "ALIVE"}

        found = to_document(check(elsewhere, few_cases, run=run_and_lose_one))
        assert sum(node["Alive"] for node in ray.nodes()) == 2  # the head and the worker that is left
    assert n_done == 2 * 8 + 6
    assert len(nodes_used) == 2
    assert stored(elsewhere.work) == stored(asked.work)
    assert without_speed(found) == without_speed(wanted)


def test_a_model_that_is_not_there_is_one_line(cluster, asked, few_cases, tmp_path):
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    stage = AnswerStage(gguf_spec(tmp_path / "nowhere.gguf"), ANSWERING, few_cases.cases, (True,))
    with connected(cluster.address) as run, pytest.raises(CheckError, match=r"nowhere\.gguf") as caught:
        list(run(stage, stage.items))
    assert "\n" not in str(caught.value)


def test_a_cluster_that_is_not_there_is_one_line():
    pytest.importorskip("ray", reason="the extra ray is not installed")
    for address, said in (("127.0.0.1:1", "no Ray cluster at"), ("nonsense", "HOST:PORT")):
        with pytest.raises(CheckError, match=said), connected(address):
            pass
