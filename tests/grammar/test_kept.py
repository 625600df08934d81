"""What is kept of schemas has one bound in sum."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from edge.grammar import compile_schema
from edge.grammar import kept as kept_module
from edge.grammar.kept import Kept, held_bytes, kept

LIMIT = 1_200_000
TEXT = 4_000  # characters of one value


def value(i):
    return f"{i:04}" * (TEXT // 4)


@pytest.fixture
def small(monkeypatch):
    """Everything kept in 1.2 MB."""
    store = Kept(limit_bytes=LIMIT)
    monkeypatch.setattr(kept_module, "KEPT", store)
    monkeypatch.setattr("edge.grammar.compile.KEPT", store)
    return store


def hostile(i):
    """Small to send, and a matcher's memory grows with each character that is read of it."""
    return {"type": "string", "maxLength": 100_000 + i}


def read(schema):
    assert compile_schema(schema).matcher.start.after('"' + "abcdefgh" * 20) is not None


def test_what_was_used_longest_ago_goes_first():
    store = Kept(limit_bytes=3 * TEXT + 2_000)
    for i in range(3):
        store.put(i, value(i))
    assert store.get(0) == value(0)
    store.put(3, value(3))
    assert [i for i in range(4) if store.get(i) is not None] == [0, 2, 3]


def test_growth_counts_and_so_does_letting_go():
    store = Kept(limit_bytes=3 * TEXT)
    store.put("a", value(0))
    store.put("b", value(1))
    before = store.n_bytes
    store.grew("b", 500)
    store.grew("b", -500)
    store.grew("nobody", 10**9)
    assert (store.n_bytes, len(store)) == (before, 2)
    store.grew("b", TEXT)
    assert store.get("a") is None
    assert store.get("b") == value(1)
    store.grew("b", 10 * TEXT)
    assert (store.n_bytes, len(store)) == (0, 0)


def test_a_value_put_twice_is_counted_once():
    store = Kept()
    store.put("a", value(0))
    before = store.n_bytes
    store.put("a", value(1))
    assert (store.n_bytes, store.get("a")) == (before, value(1))


def test_a_function_s_values_are_kept_apart_and_none_is_a_value(small):
    asked = []

    @kept
    def first(text):
        asked.append(text)

    @kept
    def second(text):
        return text.upper()

    assert (first("a"), first("a"), second("a")) == (None, None, "A")
    assert asked == ["a"]


def test_all_that_a_value_refers_to_is_weighed_once():
    text = value(0)
    assert TEXT < held_bytes([text, text]) < TEXT + 500
    assert held_bytes([text, value(1)]) > 2 * TEXT
    assert held_bytes([kept, Kept]) < 500  # code is nobody's


def test_schemas_and_all_that_their_matchers_saw_stay_within_one_bound(small):
    read(hostile(0))  # what the first one loads is not of schemas
    gc.collect()
    tracemalloc.start()
    try:
        for i in range(1, 12):
            read(hostile(i))
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(small) > 0
    assert small.n_bytes <= LIMIT
    assert held <= LIMIT  # without the bound 4 MB


def test_a_reader_that_is_no_longer_kept_goes_on(small):
    compiled = compile_schema(hostile(0))
    place = compiled.matcher.start.after('"ab')
    for i in range(1, 10):
        read(hostile(i))
    assert small.get(compiled.key) is None
    assert place.after('c"').is_complete
    assert compile_schema(hostile(0)) is not compiled


def test_a_schema_that_is_asked_for_again_is_the_same(small):
    assert compile_schema(hostile(0)) is compile_schema(hostile(0))


def test_arguments_by_name_are_other_values(small):
    @kept
    def doubled(n, *, factor=2):
        return n * factor

    assert [doubled(3), doubled(3, factor=5), doubled(3)] == [6, 15, 6]
