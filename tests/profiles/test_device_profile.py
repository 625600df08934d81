from __future__ import annotations

import re

import pytest

from edge.models.catalogue import catalogue
from profiles.device import detect_device
from profiles.device_profile import profile_for, shipped_profiles
from profiles.errors import DeviceProfileError
from profiles.recipes import QUANTIZATIONS


@pytest.fixture
def laptop(recorded):
    return detect_device(recorded("laptop-16gb"))


@pytest.fixture
def overlaid(laptop, tmp_path):
    """The laptop's profile under a user's file with this text."""

    def make(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return profile_for(laptop, path)

    return make


def test_shipped_profiles_name_known_models_and_quantizations():
    profiles = shipped_profiles()
    assert len({profile.name for profile in profiles}) == len(profiles) >= 15
    for profile in profiles:
        assert set(profile.run.models) <= set(catalogue()), profile.name
        assert set(profile.run.quantizations) <= set(QUANTIZATIONS), profile.name
        assert list(profile.run.n_ctx) == sorted(profile.run.n_ctx, reverse=True), profile.name


def test_a_module_without_a_profile_gets_the_one_of_its_kind(recorded):
    unknown = b"nvidia,p3737-0000+p3701-9999\0nvidia,tegra234\0"
    root = recorded("agx-orin-64gb", **{"proc__device-tree__compatible": unknown})
    profile, why = profile_for(detect_device(root))
    assert (profile.name, why) == ("jetson-other", "jetson (/proc/device-tree/compatible)")


def test_a_limited_jetson_keeps_its_own_profile(recorded):
    root = recorded(
        "orin-nano-8gb",
        **{"proc__self__cgroup": b"0::/\n", "sys__fs__cgroup__memory.max": b"4294967296\n"},
    )
    device = detect_device(root)
    assert device.is_limited
    assert profile_for(device)[0].name == "jetson-orin-nano-8gb"


def test_a_user_s_file_changes_what_it_names_and_nothing_else(overlaid, laptop):
    plain, _ = profile_for(laptop)
    mine, why = overlaid('[memory]\nheadroom_mib = 2000\n[run]\nquantizations = ["Q4_K_M"]\nthreads = 3\n')
    assert mine.memory.headroom_mib == 2000
    assert (mine.run.quantizations, mine.run.threads) == (("Q4_K_M",), 3)
    assert mine.run.n_ctx == plain.run.n_ctx
    assert why.startswith("laptop (/sys/class/power_supply/BAT*); ")
    assert why.endswith("mine.toml overrides it")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[memory", "is not TOML"),
        ("[memory]\nheadrom_mib = 1\n", "has memory.headrom_mib, which is unknown"),
        (
            "[memory]\nheadroom_mib = -1\n",
            "has memory.headroom_mib = -1: input should be greater than or equal to 0",
        ),
        (
            "[memory]\nheadroom_mib = 'all'\n",
            "has memory.headroom_mib = 'all': input should be a valid integer",
        ),
        ("[run]\nn_ctx = []\n", "has run.n_ctx = []: tuple should have at least 1 item"),
        ("[run]\nkv_types = ['q4']\n", "has run.kv_types.0 = 'q4'"),
        ("[run]\nthreads = 'many'\n", "has run.threads = 'many'"),
        ("[run]\norder = ['n_ctx']\n", "each of n_ctx, model, quantization"),
        ("run = 3\n", "has run = 3"),
        ("[run]\nn_ubatch = [0]\n", "has run.n_ubatch.0 = 0: input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_user_s_file_is_one_sentence_with_the_key(overlaid, text, found):
    with pytest.raises(DeviceProfileError, match=re.escape(found)) as caught:
        overlaid(text)
    assert "\n" not in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_user_s_file_that_is_not_there_is_named(laptop, tmp_path):
    with pytest.raises(DeviceProfileError, match=r"none.toml cannot be read: No such file"):
        profile_for(laptop, tmp_path / "none.toml")
