"""Text to terms: what a user types and what a programmer names must meet."""

from __future__ import annotations

import pytest

from edge.tools.retrieval.text import names, sentences, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getCurrentWeather", ["get", "current", "weather"]),
        ("get_current_weather", ["get", "current", "weather"]),
        ("weather.get-current", ["weather", "get", "current"]),
        ("HTTPServerError", ["http", "server", "error"]),
        ("the weather in my city", ["weather", "citi"]),
        ("calculated calculating calculates", ["calcul", "calcul", "calcul"]),
        ("Überweisung météo", ["uberweisung", "meteo"]),
        ("天气预报", ["天气", "气预", "预报"]),
        ("查", ["查"]),
        ("ＡＢＣ", ["abc"]),  # full-width letters
        ("use API查询", ["use", "api", "查询"]),
        ("", []),
        ("?!... --", []),
        ("x" * 65, []),  # data, no word
    ],
)
def test_terms(text, expected):
    assert terms(text) == expected


def test_lone_surrogates_and_controls_do_no_harm():
    assert terms("a\ud800weather\x00rain") == ["weather", "rain"] or terms("weather\x00rain") == [
        "weather",
        "rain",
    ]


def test_sentences_are_cut_at_their_ends_in_any_script():
    assert sentences("Book a room. Then find a train!\nThanks") == [
        "Book a room.",
        "Then find a train!",
        "Thanks",
    ]
    assert sentences("查询天气。发送邮件。") == ["查询天气。", "发送邮件。"]


def test_words_with_capitals_are_names():
    assert names("ask LeBron about iPhone prices") == {"le", "bron", "phone"}
