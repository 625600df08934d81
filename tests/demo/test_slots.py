"""Slots: one value throughout a dialogue, said in one way and meant in another."""

from __future__ import annotations

import random
from datetime import date

import pytest

from demo.slots import MaterialError, Slots

OWN = {
    "country": [["Japan", "JP"]],
    "minutes": [["an hour and a half", 90]],
    "tags": [["red and blue", ["red", "blue"]]],
    "price": "2.50..2.50",
    "n": "3..3",
    "pair": ["a", "b"],
    "opened": [date(2026, 1, 31)],
}


def slots(own: dict | None = None, seed: int = 1) -> Slots:
    return Slots(random.Random(seed), date(2026, 3, 4), OWN if own is None else own)


@pytest.mark.parametrize(
    ("template", "said", "meant"),
    [
        ("to {country}", "to Japan", "to JP"),
        ("to {country!}", "to Japan", "to Japan"),
        ("{minutes}", "an hour and a half", "90"),
        ("{tags}", "red and blue", '["red", "blue"]'),
        ("{price} each", "2.50 each", "2.50 each"),
        ("{n} for {= n * price}", "3 for 7.5", "3 for 7.5"),
        ("{= round(n / 7, 1)}", "0.4", "0.4"),
        ("{= 10 / 5}", "2", "2"),
        ("{#5..5} left", "5 left", "5 left"),
        ("{opened}", "2026-01-31", "2026-01-31"),
        ('{"a": {n}}', '{"a": 3}', '{"a": 3}'),
    ],
)
def test_a_text_says_and_means(template, said, meant):
    assert slots().text(template, said=True) == said
    assert slots().text(template, said=False) == meant


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{minutes}", 90),
        ("{tags}", ["red", "blue"]),
        ("{price}", 2.5),
        ("{= n * 2}", 6),
        ("{minutes} min", "90 min"),
        ({"a": ["{n}", {"b": "{country}"}]}, {"a": [3, {"b": "JP"}]}),
        (date(2026, 1, 2), "2026-01-02"),
        (True, True),
        (None, None),
    ],
)
def test_an_argument_keeps_its_type(template, value):
    found = slots().argument(template)
    assert found == value
    assert type(found) is type(value)


def test_a_slot_has_one_value_and_its_numbered_twin_another():
    for seed in range(20):
        one = slots(seed=seed)
        text = one.text("{pair} {pair} {pair2}", said=True)
        assert text in ("a a b", "b b a")
        assert one.argument("{pair}") == text[0]


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{nobody}", "nobody lists the slot"),
        ("{= n / 0}", "cannot be computed"),
        ("{= __import__('os')}", "nobody lists the slot {__import__}"),
        ("{= n * (}", "cannot be computed"),
        ("{= tags}", "is no number"),
        ("{= (1).real}", "nobody lists the slot {real}"),
    ],
)
def test_what_cannot_be_filled_is_refused(template, fault):
    with pytest.raises(MaterialError) as refused:
        slots().text(template, said=True)
    assert fault in str(refused.value)


@pytest.mark.parametrize("values", [[], "many", 5, None, {"a": 1}])
def test_values_must_be_a_list_or_a_range(values):
    with pytest.raises(MaterialError):
        slots({"x": values}).value("x")


def test_the_date_is_needed_by_pool_dates_and_not_by_a_dialogues_own():
    assert not slots({"date": ["tomorrow"]}).needs_today
    own = slots({"date": ["2030-01-01"]})
    own.text("{date}", said=True)
    assert not own.needs_today
    pool = slots({})
    pool.text("{date}", said=True)
    assert pool.needs_today
