"""The profile file: what it must hold, and what is said about others."""

from __future__ import annotations

from importlib import resources

import pytest

from edge.errors import OpenWorldError
from edge.tools.open_world.profile import built_in, fill, parse_profile, profile_for, read_profile

TEXT = resources.files("edge.tools").joinpath("data/toolomni.toml").read_text(encoding="utf-8")


def test_toolomni_s_limits_are_those_that_are_known():
    profile = built_in("toolomni")
    limits = (profile.top_k, profile.max_rounds, profile.max_steps, profile.max_observation_chars)
    assert limits == (5, 4, 12, 1024)
    assert (profile.tags.search, profile.finish.name) == (("<search>", "</search>"), "Finish")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("top_k = 5 ", "top_k = 0 ", "top_k: input should be greater than or equal to 1"),
        ("top_k = 5 ", "", "top_k: field required"),
        ("max_steps = 12", "max_stebs = 12", "max_steps: field required"),
        ("name = \"toolomni", "surplus = 1\nname = \"toolomni", "surplus: extra inputs are not permitted"),
        ('["<search>", "</search>"]', '["<search>"]', "tags.search.1: field required"),
        ('["<search>", "</search>"]', '["", "</search>"]', "tags.search.0: string should have at least 1 character"),
        ("[tags]", "[tags", "is not TOML"),
    ],
)  # fmt: skip
def test_a_bad_profile_is_one_line(old, new, message):
    assert old in TEXT
    with pytest.raises(OpenWorldError) as caught:
        parse_profile(TEXT.replace(old, new, 1), "p.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("the profile p.toml")
    assert "\n" not in str(caught.value)


def test_a_profile_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(OpenWorldError, match=r"none\.toml cannot be read"):
        read_profile(tmp_path / "none.toml")
    (tmp_path / "own.toml").write_text(TEXT.replace("max_rounds = 4", "max_rounds = 9"))
    assert read_profile(tmp_path / "own.toml").max_rounds == 9


def test_known_names_in_braces_are_filled_in_and_other_braces_are_text():
    assert fill('{names} in {"a": {names.x}}', names="b") == 'b in {"a": {names.x}}'


def test_the_profile_is_the_one_asked_for_or_the_one_that_suits_the_model(tmp_path):
    (tmp_path / "own.toml").write_text(TEXT.replace("toolomni-qwen3-4b", "mine"))
    assert profile_for(None, "ToolOmni Qwen3 4B").name == "toolomni-qwen3-4b"
    assert profile_for(None, "SmolLM2 135M").name == "calls"
    assert profile_for("toolomni", "SmolLM2 135M").name == "toolomni-qwen3-4b"
    assert profile_for(str(tmp_path / "own.toml"), "x").name == "mine"
