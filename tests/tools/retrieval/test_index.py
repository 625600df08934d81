"""The index: finds, keeps itself on disk, reads again only what changed, survives a damaged file."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from edge.errors import RetrievalError
from edge.tools.retrieval.document import FieldWeights
from edge.tools.retrieval.index import IndexReport, SearchOptions, ToolIndex, open_index
from tests.tools.retrieval.conftest import FakeEmbedder, entry

TOOLS = [
    entry("get_weather", "Rain and sun in a city", city={"type": "string", "description": "Where"}),
    entry("send_letter", "Bring a message to somebody", unit={"enum": ["stamped", "registered"]}),
    entry("playSong", "Music by an artist"),
]


def names(hits):
    return [hit.entry.tool.name for hit in hits]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("weather", "get_weather"),
        ("play a song", "playSong"),  # the name, split
        ("registered", "send_letter"),  # a value of an enum
        ("which city", "get_weather"),  # a parameter's name
        ("messages for somebody", "send_letter"),  # another form of the word
        ("the wheather there", "get_weather"),  # a slip
    ],
)
def test_a_tool_is_found_by_each_of_its_fields(query, first):
    index = ToolIndex.in_memory(TOOLS)
    assert names(index.search(query))[:1] == [first]


def test_what_has_nothing_in_common_is_not_found():
    index = ToolIndex.in_memory(TOOLS)
    assert index.search("quantum chromodynamics") == []
    assert index.search("the of and") == []
    assert index.search("") == []


def test_a_name_is_not_taken_for_a_slip():
    index = ToolIndex.in_memory(TOOLS)
    assert names(index.search("artish")) == ["playSong"]
    assert index.search("Artish") == []


def test_k_bounds_the_answer():
    index = ToolIndex.in_memory([entry(f"weather_{n}") for n in range(9)])
    assert len(index.search("weather", 4)) == 4
    with pytest.raises(RetrievalError, match="0; allowed is 1 to 1000"):
        index.search("weather", 0)


def test_each_sentence_of_a_query_finds_its_own_tool():
    near = [entry(f"yearly_{word}", f"Prints the {word} report") for word in ("tax", "staff", "sales")]
    index = ToolIndex.in_memory([*TOOLS, *near, *(entry(f"other_{n}") for n in range(50))])
    query = "Print the yearly report about the tax of the staff. Music!  Play some music."
    scores = []
    for weight in (0, 0.5):
        hits = index.search(query, 9, options=SearchOptions(sentence_weight=weight))
        scores.append(next(hit.score for hit in hits if hit.entry.id == "playSong"))
    assert scores[0] + 0.15 < scores[1]  # it is the best of a sentence, and not of the whole


def test_what_was_said_before_counts_less_than_what_is_asked():
    index = ToolIndex.in_memory(TOOLS)
    assert names(index.search("in another city", context="play a song")) == ["get_weather", "playSong"]


def test_an_index_of_no_tools_and_of_tools_without_words_can_be_searched():
    assert ToolIndex.in_memory([]).search("x") == []
    assert ToolIndex.in_memory([entry("---"), entry("_")]).search("weather") == []
    assert names(ToolIndex.in_memory([entry("---"), TOOLS[0]]).search("weather")) == ["get_weather"]


def write(path, tools):
    import json

    path.write_text("".join(json.dumps(tool.to_row()) + "\n" for tool in tools))


def opened(path, cache, embedder=None):
    index, report = open_index(path, cache, embedder=embedder)
    with index:
        return report, names(index.search("weather rain letter mail music"))


def test_only_what_changed_is_read_again(tmp_path):
    catalogue, cache = tmp_path / "c.jsonl", tmp_path / "cache"
    write(catalogue, TOOLS)
    assert opened(catalogue, cache)[0] == IndexReport(3, 3, 0)
    assert opened(catalogue, cache)[0] == IndexReport(3, 0, 0)
    write(catalogue, [TOOLS[2], entry("get_weather", "Hail"), entry("mail_it", "By post")])
    report, found = opened(catalogue, cache)
    assert report == IndexReport(3, 2, 2)
    assert sorted(found) == ["get_weather", "mail_it", "playSong"]
    assert opened(catalogue, cache)[1] == found


def test_an_index_brought_up_to_date_ranks_like_one_built_anew(tmp_path):
    catalogue, cache = tmp_path / "c.jsonl", tmp_path / "cache"
    write(catalogue, TOOLS[:2])
    opened(catalogue, cache)
    write(catalogue, [entry("storm_warning", "Weather that hurts"), *TOOLS[1:]])
    index, _ = open_index(catalogue, cache)
    fresh, _ = open_index(catalogue, None)
    with index, fresh:
        for query in ("weather", "music in the city", "somebody hurts"):
            assert index.search(query) == fresh.search(query)


@pytest.mark.parametrize("damage", [b"", b"not a database at all, but long enough to look" * 100, None])
def test_a_damaged_index_is_built_again(tmp_path, damage):
    catalogue, cache = tmp_path / "c.jsonl", tmp_path / "cache"
    write(catalogue, TOOLS)
    _, found = opened(catalogue, cache)
    (path,) = cache.glob("*.sqlite")
    if damage is None:  # written by another version
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE meta SET value = 'old' WHERE key = 'identity'")
        connection.close()
    else:
        path.write_bytes(damage)
    assert opened(catalogue, cache) == (IndexReport(3, 3, 0), found)


def test_an_index_cut_in_its_middle_is_built_again_or_refused_in_one_line(tmp_path):
    catalogue, cache = tmp_path / "c.jsonl", tmp_path / "cache"
    write(catalogue, [entry(f"weather_{n}", "word " * 50) for n in range(200)])
    opened(catalogue, cache)
    (path,) = cache.glob("*.sqlite")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert opened(catalogue, cache)[0] == IndexReport(200, 200, 0)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    write(tmp_path / "c.jsonl", TOOLS)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RetrievalError, match="cannot be kept"):
        open_index(tmp_path / "c.jsonl", tmp_path / "cache")


def test_processes_that_build_the_same_index_do_not_spoil_it(tmp_path):
    catalogue, cache = tmp_path / "c.jsonl", tmp_path / "cache"
    write(catalogue, TOOLS * 1)
    problems = []

    def work():
        try:
            opened(catalogue, cache)
        except Exception as exc:  # noqa: BLE001
            problems.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert opened(catalogue, cache)[0] == IndexReport(3, 0, 0)


def test_meaning_finds_what_words_do_not():
    query = "do I need an umbrella"
    assert "get_weather" not in names(ToolIndex.in_memory(TOOLS).search(query))
    assert names(ToolIndex.in_memory(TOOLS, embedder=FakeEmbedder()).search(query))[0] == "get_weather"


def test_vectors_are_made_once_for_each_tool_and_model(tmp_path):
    catalogue, cache = tmp_path / "c.jsonl", tmp_path / "cache"
    write(catalogue, TOOLS)
    counts = []
    for identity, tools in [
        ("a", TOOLS),
        ("a", TOOLS),
        ("a", [*TOOLS[:2], entry("new")]),
        ("b", TOOLS),
        ("a", TOOLS),
    ]:
        embedder = FakeEmbedder(identity)
        write(catalogue, tools)
        index, _ = open_index(catalogue, cache, embedder=embedder)
        index.close()
        counts.append(embedder.n_embedded)
    # The last tool of TOOLS was out in between, so it is embedded again; the others never.
    assert counts == [3, 0, 1, 3, 1]


def test_an_index_without_vectors_gets_them_when_a_model_comes(tmp_path):
    catalogue, cache = tmp_path / "c.jsonl", tmp_path / "cache"
    write(catalogue, TOOLS)
    opened(catalogue, cache)
    report, _ = opened(catalogue, cache, FakeEmbedder())
    assert report == IndexReport(3, 0, 0)


def test_a_word_in_the_name_outweighs_the_same_word_elsewhere():
    described = entry("first_tool", "Weather", x={"type": "string", "description": "weather"})
    index = ToolIndex.in_memory([described, entry("weather_map", "Draws one")])
    assert names(index.search("weather"))[0] == "weather_map"
    flat = FieldWeights(name=1, description=1, parameter_names=1, parameter_descriptions=1, values=1)
    index = ToolIndex.in_memory([described, entry("weather_map", "Draws one")], weights=flat)
    assert names(index.search("weather"))[0] == "first_tool"


def test_an_index_that_another_process_replaces_gives_no_wrong_tool(tmp_path):
    catalogue, cache = tmp_path / "c.jsonl", tmp_path / "cache"
    write(catalogue, TOOLS)
    index, _ = open_index(catalogue, cache)
    write(catalogue, [entry("other"), *TOOLS])
    opened(catalogue, cache)
    with index, pytest.raises(RetrievalError, match="replaced by another process"):
        index.search("weather")
