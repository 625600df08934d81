"""The measures, worked by hand, and the project's own sets."""

from __future__ import annotations

import math

import pytest

from edge.errors import RetrievalError
from edge.tools.retrieval.catalogue import read_catalogue
from edge.tools.retrieval.evaluate import evaluate, read_queries
from edge.tools.retrieval.index import ToolIndex
from edge.tools.retrieval.metrics import ndcg, recall, reciprocal_rank
from tests.tools.retrieval.conftest import DATA, entry

RANKING = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("relevant", "k", "expected"),
    [
        ({"a"}, 1, 1.0),
        ({"b"}, 1, 0.0),
        ({"b"}, 3, 1 / math.log2(3)),
        ({"a", "c"}, 3, (1 + 1 / 2) / (1 + 1 / math.log2(3))),
        ({"a", "b", "c"}, 1, 1.0),  # no more than one can be in one place
        ({"x"}, 5, 0.0),
    ],
)
def test_ndcg(relevant, k, expected):
    assert ndcg(RANKING, relevant, k) == pytest.approx(expected)


def test_recall_and_reciprocal_rank():
    assert recall(RANKING, {"b", "x"}, 2) == 0.5
    assert recall(RANKING, {"b", "d"}, 2) == 0.5
    assert reciprocal_rank(RANKING, {"c", "d"}) == pytest.approx(1 / 3)
    assert reciprocal_rank(RANKING, {"x"}) == 0.0


def test_a_report_is_the_mean_over_the_queries(tmp_path):
    index = ToolIndex.in_memory([entry("weather"), entry("letter"), entry("song")])
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"query": "weather", "relevant": ["weather"]}\n{"query": "song", "relevant": ["letter", "song"]}\n'
    )
    report = evaluate(index, read_queries(path, index.ids()))
    assert report.n_queries == 2
    assert report.recall == {1: 0.75, 3: 0.75, 5: 0.75, 10: 0.75}
    assert report.mrr == 1.0
    assert report.ndcg[1] == 1.0
    assert report.rankings == (("weather",), ("song",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "are empty"),
        ("{", "line 1 is not JSON"),
        ("7", "line 1 is no object"),
        ('\n{"query": " ", "relevant": ["a"]}', "line 2: query is missing or empty"),
        ('{"query": "q", "relevant": []}', "line 1: relevant is no list"),
        ('{"query": "q", "relevant": "a"}', "line 1: relevant is no list"),
        (
            '{"query": "q", "relevant": ["a", "zz"]}',
            "line 1: relevant names 'zz', which is not in the catalogue",
        ),
    ],
)
def test_bad_queries_are_one_line_that_says_where(tmp_path, text, message):
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(RetrievalError, match=message) as caught:
        read_queries(path, ["a"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "ndcg_at_5", "recall_at_5"), [("household", 0.88, 0.92), ("languages", 1, 1)]
)
def test_the_project_s_own_sets_are_found_as_well_as_they_were(name, ndcg_at_5, recall_at_5):
    index = ToolIndex.in_memory(read_catalogue(DATA / f"{name}_catalog.jsonl"))
    report = evaluate(index, read_queries(DATA / f"{name}_queries.jsonl", index.ids()))
    assert report.ndcg[5] >= ndcg_at_5
    assert report.recall[5] >= recall_at_5
