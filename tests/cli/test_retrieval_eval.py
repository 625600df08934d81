"""`retrieval-eval` at the command line."""

from __future__ import annotations

import json

import pytest

from tests.tiny_bert import write_tiny_bert
from tests.tools.retrieval.conftest import DATA

HOUSEHOLD = (DATA / "household_catalog.jsonl", DATA / "household_queries.jsonl")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path / "cache"))


def test_the_measures_come_as_one_document(cli, tmp_path):
    code, out, err = cli("retrieval-eval", *HOUSEHOLD, "--json", "--rankings", tmp_path / "found.jsonl")
    document = json.loads(out)
    assert code == 0
    assert "indexed 60 of 60 tools" in err
    assert (document["n_tools"], document["n_queries"]) == (60, 40)
    assert set(document["ndcg"]) == {"1", "3", "5"}
    assert set(document["recall"]) == {"1", "3", "5", "10"}
    assert 0.8 < document["mrr"] <= 1
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    assert rows[1]["relevant"] == ["get_weather_forecast"] == rows[1]["found"][:1]


def test_the_second_time_nothing_is_indexed_and_people_get_lines(cli):
    cli("retrieval-eval", *HOUSEHOLD)
    code, out, err = cli("retrieval-eval", *HOUSEHOLD)
    assert (code, err) == (0, "")
    assert out.startswith("40 queries, 60 tools\n")
    assert "\nndcg@5     0." in out


@pytest.mark.model
def test_an_embedding_model_takes_part_with_its_weight(cli, tmp_path):
    model = write_tiny_bert(tmp_path / "bert.gguf")
    command = ("retrieval-eval", *HOUSEHOLD, "--json", "--embed-model", model, "--threads", "1")
    alone = json.loads(cli("retrieval-eval", *HOUSEHOLD, "--json")[1])
    without = json.loads(cli(*command, "--dense-weight", "0")[1])
    random = json.loads(cli(*command, "--dense-weight", "1")[1])
    assert without["ndcg"] == alone["ndcg"]
    assert random["ndcg"]["5"] < alone["ndcg"]["5"] - 0.2  # its weights are random


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ("{", "line 1 is not JSON"),
        ('{"query": "x", "relevant": ["nobody"]}', "line 1: relevant names 'nobody'"),
    ],
)
def test_bad_queries_are_one_line(cli, tmp_path, queries, message):
    (tmp_path / "q.jsonl").write_text(queries)
    code, out, err = cli("retrieval-eval", HOUSEHOLD[0], tmp_path / "q.jsonl")
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]


def test_a_chat_model_cannot_embed(cli, tiny_model):
    code, out, err = cli("retrieval-eval", *HOUSEHOLD, "--embed-model", tiny_model)
    assert (code, out) == (1, "")
    assert "is not an embedding model" in err
