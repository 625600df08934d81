"""Spoken dates and times against a reading of them that was written apart."""

from __future__ import annotations

import random
import re
from datetime import date, timedelta

import pytest

from demo.pools import MADE, MONTHS, WEEKDAYS, listed_pools

TODAYS = [
    date(2024, 2, 28), date(2024, 2, 29), date(2025, 2, 28), date(2024, 12, 31), date(2026, 1, 1), date(2026, 3, 4),
    date(2027, 10, 31), date(2025, 11, 21),
]  # fmt: skip
FIXED = {
    "tomorrow": 1, "the day after tomorrow": 2, "in two days": 2, "a week from today": 7, "in a week": 7,
    "in two weeks": 14, "two weeks from today": 14, "yesterday": -1, "the day before yesterday": -2,
    "two days ago": -2, "a week ago": -7,
}  # fmt: skip
HOURS = ["twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]


def understood(said: str, today: date) -> date:
    if said in FIXED:
        return today + timedelta(days=FIXED[said])
    if found := re.fullmatch(r"in (\d) days|(\d) days ago", said):
        return today + timedelta(days=int(found[1] or 0) - int(found[2] or 0))
    if found := re.fullmatch(r"(this coming |last )?(\w+day)", said):
        step = -1 if found[1] == "last " else 1
        return next(
            day
            for n in range(1, 8)
            if WEEKDAYS[(day := today + step * timedelta(days=n)).weekday()] == found[2]
        )
    if re.fullmatch(r"\d{4}-\d\d-\d\d", said):
        return date.fromisoformat(said)
    day = re.search(r"\b(\d\d?)(?:st|nd|rd|th)?\b(?!\d)", said)
    month = next(i for i, name in enumerate(MONTHS, 1) if name[:3] in said)
    year = re.search(r"\b20\d\d\b", said)
    return date(int(year[0]) if year else today.year, month, int(day[1]))


@pytest.mark.parametrize("today", TODAYS)
@pytest.mark.parametrize("pool", ["date", "past_date"])
def test_a_spoken_day_is_the_day_that_is_meant(pool, today):
    for seed in range(150):
        value = MADE[pool](random.Random(seed), today)
        assert understood(value.said, today).isoformat() == value.meant, (value, today)
        assert (value.meant > today.isoformat()) == (pool == "date"), value


def minutes_of(said: str) -> int:
    if found := re.fullmatch(r"(\d\d):(\d\d)", said):
        return int(found[1]) * 60 + int(found[2])
    later = 720 if "pm" in said or "afternoon" in said or "evening" in said else 0
    if found := re.fullmatch(r"(\d+)(?::(\d\d))? ?(?:am|pm|in the \w+)", said):
        return int(found[1]) % 12 * 60 + int(found[2] or 0) + later
    found = re.fullmatch(r"(?:(half past|quarter past|quarter to) )?(\w+) in the \w+", said)
    shift = {None: 0, "half past": 30, "quarter past": 15, "quarter to": -15}[found[1]]
    return HOURS.index(found[2]) * 60 + shift + later


def test_a_spoken_time_is_the_time_that_is_meant():
    for seed in range(1500):
        value = MADE["time"](random.Random(seed), date(2026, 3, 4))
        said = minutes_of(value.said)
        assert f"{said // 60:02d}:{said % 60:02d}" == value.meant, value


def test_a_moment_is_a_day_and_a_time():
    for seed in range(200):
        value = MADE["datetime"](random.Random(seed), date(2026, 3, 4))
        assert re.fullmatch(r"2026-\d\d-\d\dT\d\d:\d\d", value.meant), value


@pytest.mark.parametrize("pool", sorted(MADE))
def test_the_same_seed_gives_the_same_value(pool):
    values = [MADE[pool](random.Random(5), date(2026, 3, 4)) for _ in range(2)]
    assert values[0] == values[1]
    assert values[0].said


def test_listed_pools_hold_values_or_pairs():
    for name, values in listed_pools().items():
        assert len(values) >= 5, name
        for value in values:
            assert isinstance(value, str) or (isinstance(value, list) and len(value) == 2), (name, value)
