"""`run --open-world` and `open-world-eval` at the command line, with a model that talks nonsense."""

from __future__ import annotations

import json

import pytest

from tests.tiny_gguf import TinyShape, write_gguf
from tests.tools.retrieval.conftest import DATA

pytestmark = pytest.mark.model
CATALOG, QUERIES = DATA / "household_catalog.jsonl", DATA / "household_queries.jsonl"
FAST = ("--threads", "1", "--max-tokens", "60", "--seed", "1")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("open_world") / "tiny.gguf", TinyShape(n_ctx=4096))


def test_the_evaluation_is_one_document(cli, tiny_model, tmp_path):
    rows = QUERIES.read_text().splitlines()[:2]
    (tmp_path / "r.jsonl").write_text("\n".join(rows))
    command = ("open-world-eval", CATALOG, tmp_path / "r.jsonl", "--model", tiny_model, "--json", *FAST)
    code, out, err = cli(*command, "--with-api-list", "--runs", tmp_path / "runs.jsonl")
    document = json.loads(out)
    assert code == 0
    assert (document["n_episodes"], document["setting"], document["profile"]) == (2, "with-api-list", "calls")
    assert document["gold_recall"] == 1.0
    assert sum(document["outcomes"].values()) == 2
    assert document["call_validity"] in (None, 1.0)  # the grammar sees to that
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2
    assert len([line for line in err.splitlines() if "gold 1.00" in line]) == 2


def test_a_search_that_leads_nowhere_is_one_line(cli, tiny_model):
    command = ("run", "hi", "--open-world", "--catalog", CATALOG, "--model", tiny_model, *FAST)
    code, out, err = cli(*command, "--open-world-profile", "toolomni")
    assert (code, out) == (1, "")
    assert "the model found no tool in 0 searches" in err.splitlines()[-1]


def test_to_the_end_with_simulated_tools_as_one_document(cli, tiny_model):
    command = (
        "run",
        "weather",
        "--open-world",
        "--simulate",
        "--catalog",
        CATALOG,
        "--model",
        tiny_model,
        *FAST,
    )
    code, out, _ = cli(*command, "--json")
    document = json.loads(out)
    assert code == 0
    assert set(document) == {"outcome", "answer", "calls", "steps", "open_world"}
    assert set(document["open_world"]) == {"chosen", "how", "rounds", "steps", "faults", "found"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--open-world",), "--open-world searches a catalogue; give one with --catalog FILE"),
        (("--simulate",), "--simulate belongs to --open-world"),
        (("--open-world-profile", "calls"), "--open-world-profile belongs to --open-world"),
        (
            ("--open-world", "--catalog", CATALOG, "--open-world-profile", "none.toml"),
            "none.toml cannot be read",
        ),
    ],
)
def test_options_that_do_not_go_together_are_one_line(cli, tiny_model, options, message):
    code, out, err = cli("run", "hi", *options, "--model", tiny_model)
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]
