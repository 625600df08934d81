"""Distances between logits, on numbers worked by hand."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from convert import ConvertOptions, convert
from convert.errors import ConvertError
from convert.reference import distance, probe_prompts


def test_equal_logits_have_no_distance_and_a_constant_shift_none_in_kl():
    logits = [np.array([[1.0, 2.0, 3.0]], np.float32)]
    assert distance(logits, logits).max_abs == 0
    shifted = distance(logits, [logits[0] + 5])
    assert shifted.kl_mean == pytest.approx(0, abs=1e-12)
    assert shifted.max_abs == 5


def test_the_divergence_of_two_coins_is_the_textbook_value():
    fair, biased = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    found = distance([fair], [biased])
    assert found.kl_mean == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert not found.is_float32_noise


def test_the_share_of_equal_top_tokens_counts_positions():
    one, other = np.eye(4)[[0, 1, 2, 3]], np.eye(4)[[0, 1, 2, 0]]
    assert distance([one], [other]).same_top == 0.75


def test_prompts_are_cut_and_empty_ones_left_out(tiny):
    prompts = probe_prompts(tiny("qwen3-tied") / "tokenizer.json", ["", "x" * 1000])
    assert [len(prompt) for prompt in prompts] == [256]


@pytest.mark.model
def test_full_verification_without_torch_says_what_is_missing_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConvertError, match="--verify full needs torch, which is not installed"):
        convert(
            ConvertOptions(str(tiny("qwen3-tied")), tmp_path, types=("bf16",), pre="qwen2", verify="full")
        )
    assert list(tmp_path.iterdir()) == []
