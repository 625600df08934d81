"""Disturbed sentences: what an argument copies stays as it is."""

from __future__ import annotations

import random

import pytest

from demo.noise import disturbed, slipped

N = 600


def variants(ask: str, copied: list[str] = ()) -> set[str]:
    return {disturbed(ask, list(copied), random.Random(seed)) for seed in range(N)}


def test_a_sentence_comes_as_it_is_and_otherwise():
    found = variants("Please water the {plant} tomorrow Morning.")
    assert "Please water the {plant} tomorrow Morning." in found
    assert any(text.startswith("please water") for text in found)
    assert any(text.endswith("Thanks!") for text in found)
    assert any(text.endswith("Morning") for text in found)
    assert len(found) > 60


def test_slots_are_never_touched():
    for text in variants("Move {First_Name} from {Room} to {Room2} please"):
        for slot in ("{First_Name}", "{Room}", "{Room2}"):
            assert slot in text


@pytest.mark.parametrize(
    ("ask", "copied"),
    [
        ("Write down Bring Umbrellas for the kids", ["Bring Umbrellas"]),
        ('Post "Closing Early Today" to the board', []),
        ("Post 'Closing Early Today' to the board", []),
        ("Note: Buy Wholemeal Bread", ["Buy Wholemeal Bread"]),
    ],
)
def test_what_is_copied_keeps_every_letter(ask, copied):
    for text in variants(ask, copied):
        assert ask in text


def test_an_apostrophe_is_no_quotation():
    assert any("its" in text.lower() or "it's freezing" in text for text in variants("It's freezing in here"))


def test_a_slip_keeps_the_first_letter_and_changes_by_one_at_most():
    for seed in range(N):
        word = slipped("calendar", random.Random(seed))
        assert word[0] == "c"
        assert abs(len(word) - 8) <= 1
        assert len(word) != 8 or sorted(word) == sorted("calendar")
