"""Values that any piece of the training material may use in its sentences: people, places, dates, amounts.

A value is what the user says and what the argument must then hold. Dates are spoken as people do ("next Friday") and
valued in ISO 8601, relative to the conversation's own today.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

Json = object
_POOLS = Path(__file__).parent / "data" / "pools.yaml"
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_HOURS = ("twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")


@dataclass(frozen=True, slots=True)
class Value:
    """said: the user's words. meant: the argument, of any JSON type."""

    said: str
    meant: Json


@functools.cache
def listed_pools() -> Mapping[str, Sequence[Any]]:
    """The pools that are plain lists, from data/pools.yaml: of values, or of pairs of what is said and meant."""
    pools: dict[str, list[Any]] = load_yaml(_POOLS.read_text(encoding="utf-8"))
    return pools


def load_yaml(text: str) -> Any:  # noqa: ANN401 - whatever was written
    """As yaml.safe_load, by libyaml where it was built in: eight times as fast. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _date_value(rng: random.Random, today: date) -> Value:
    return _spoken_future(rng, today, _future(rng, today))


def _future(rng: random.Random, today: date) -> date:
    return today + timedelta(days=rng.choice((1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 20, 27, 45, 80)))


def _spoken_future(rng: random.Random, today: date, day: date) -> Value:
    ahead = (day - today).days
    said = [day.isoformat(), _written(rng, day, today), _written(rng, day, today)]
    if ahead == 1:
        said = ["tomorrow"] * 5 + said
    elif ahead == 2:
        said += ["the day after tomorrow", "in two days", "the day after tomorrow"]
    elif ahead < 7:
        weekday = WEEKDAYS[day.weekday()]
        said += [weekday, f"this coming {weekday}", weekday, f"in {ahead} days"]
    elif ahead == 7:
        said += ["a week from today", "in a week"]
    elif ahead == 14:
        said += ["in two weeks", "two weeks from today"]
    return Value(rng.choice(said), day.isoformat())


def _past_value(rng: random.Random, today: date) -> Value:
    behind = rng.choice((1, 1, 1, 2, 3, 4, 5, 6, 7, 9, 12, 30, 100))
    day = today - timedelta(days=behind)
    said = [day.isoformat(), _written(rng, day, today)]
    if behind == 1:
        said += ["yesterday"] * 4
    elif behind == 2:
        said += ["the day before yesterday", "two days ago"]
    elif behind < 7:
        said += [f"last {WEEKDAYS[day.weekday()]}", f"{behind} days ago"]
    elif behind == 7:
        said += ["a week ago"]
    return Value(rng.choice(said), day.isoformat())


def _written(rng: random.Random, day: date, today: date) -> str:
    month = MONTHS[day.month - 1]
    forms = [
        f"{day.day} {month}",
        f"{month} {day.day}",
        f"the {_ordinal(day.day)} of {month}",
        f"{month[:3]} {day.day}",
    ]
    text = rng.choice(forms)
    return text if day.year == today.year and rng.random() < 0.8 else f"{text} {day.year}"


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _time_value(rng: random.Random, today: date) -> Value:
    hour, minute = rng.randint(6, 22), rng.choice((0, 0, 0, 15, 30, 30, 45, 10, 20, 50, 5))
    return Value(_spoken_time(rng, hour, minute), f"{hour:02d}:{minute:02d}")


def _spoken_time(rng: random.Random, hour: int, minute: int) -> str:
    half = "am" if hour < 12 else "pm"
    on_dial = hour % 12 or 12
    said = [f"{hour:02d}:{minute:02d}", f"{on_dial}:{minute:02d} {half}", f"{on_dial}:{minute:02d}{half}"]
    part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
    if minute == 0:
        said += [f"{on_dial} {half}", f"{on_dial}{half}", f"{_HOURS[hour % 12]} {part}", f"{on_dial} {part}"]
    if minute == 30:
        said += [f"half past {_HOURS[hour % 12]} {part}"]
    if minute == 15:
        said += [f"quarter past {_HOURS[hour % 12]} {part}"]
    if minute == 45:
        said += [f"quarter to {_HOURS[(hour + 1) % 12]} {part}"] if hour != 11 else []
    return rng.choice(said)


def _datetime_value(rng: random.Random, today: date) -> Value:
    day, time = _date_value(rng, today), _time_value(rng, today)
    said = rng.choice((f"{day.said} at {time.said}", f"{day.said}, {time.said}", f"{time.said} {day.said}"))
    return Value(said, f"{day.meant}T{time.meant}")


def _weekday(rng: random.Random, today: date) -> Value:
    name = rng.choice(WEEKDAYS)
    return Value(name, name)


def _month(rng: random.Random, today: date) -> Value:
    name = rng.choice(MONTHS)
    return Value(name, name)


def _year(rng: random.Random, today: date) -> Value:
    year = today.year - rng.choice((0, 1, 1, 2, 3, 5, 8, 12, 20))
    return Value(str(year), year)


def _phone(rng: random.Random, today: date) -> Value:
    number = f"+{rng.choice((1, 33, 34, 39, 44, 49, 48, 81))} {rng.randint(100, 999)} {rng.randint(1000000, 9999999)}"
    return Value(number, number)


def _order_id(rng: random.Random, today: date) -> Value:
    forms = (
        f"{rng.randint(1000, 99999)}",
        f"A-{rng.randint(100, 9999)}",
        f"ORD-{rng.randint(10000, 99999)}",
        f"#{rng.randint(1000, 9999)}",
    )
    text = rng.choice(forms)
    return Value(text, text)


def _id(rng: random.Random, today: date) -> Value:
    letters = "".join(rng.choice("abcdefghjkmnpqrstuvwxyz") for _ in range(rng.randint(1, 3)))
    text = rng.choice(
        (
            f"{letters}-{rng.randint(10, 9999)}",
            f"{letters}{rng.randint(100, 99999)}",
            f"{letters.upper()}{rng.randint(10, 999)}",
        )
    )
    return Value(text, text)


def _ip(rng: random.Random, today: date) -> Value:
    text = f"{rng.choice(('10.0', '192.168', '172.16'))}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"
    return Value(text, text)


def _version(rng: random.Random, today: date) -> Value:
    text = f"{rng.randint(0, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 12)}"
    return Value(text, text)


MADE: Mapping[str, Callable[[random.Random, date], Value]] = {
    "date": _date_value,
    "past_date": _past_value,
    "time": _time_value,
    "datetime": _datetime_value,
    "weekday": _weekday,
    "month": _month,
    "year": _year,
    "phone": _phone,
    "order_id": _order_id,
    "id": _id,
    "ip": _ip,
    "version": _version,
}
# A sentence with one of these can only be understood by who knows today's date.
NEED_TODAY = frozenset({"date", "past_date", "datetime"})
RANGES = {
    "small": "2..9",
    "n": "2..40",
    "big": "100..9999",
    "amount": "5.00..900.00",
    "percent": "5..90",
    "rating": "1..5",
}
