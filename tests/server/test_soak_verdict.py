"""What `benchmarks.serve_soak` takes for a leak and what it does not."""

from __future__ import annotations

import random

import pytest

from benchmarks.serve_soak import Memory, flatness

MODEL_BYTES, OWN_BYTES = 120 << 20, 180 << 20


def soak(own_bytes_after, *, n=1000, noise_bytes=3 << 20):
    """Memory after each request: a model's pages, the process's own, and what answers at work hold."""
    rng = random.Random(1)
    own = [int(OWN_BYTES + own_bytes_after(i) + rng.uniform(0, noise_bytes)) for i in range(n)]
    return flatness([Memory(MODEL_BYTES + each, each) for each in own])


def test_memory_that_fills_up_to_a_bound_is_flat():
    found = soak(lambda i: min(i, 200) * (100 << 10))
    assert found.is_flat
    assert 100 < found.plateau_at <= 250


def test_memory_that_swings_is_flat():
    assert soak(lambda i: (i % 90) * (60 << 10)).is_flat


@pytest.mark.parametrize("kib", [20, 40])
def test_a_leak_of_20_kib_a_request_is_found(kib):
    found = soak(lambda i: i * (kib << 10))
    assert not found.is_flat
    assert found.kib_per_request == pytest.approx(kib, rel=0.1)


def test_a_leak_is_found_beside_a_bound_that_fills_and_pages_that_are_given_back():
    rng = random.Random(2)
    found = []
    for i in range(1000):
        own = OWN_BYTES + min(i, 200) * (100 << 10) + i * (20 << 10) + rng.randrange(3 << 20)
        found.append(Memory(own + MODEL_BYTES - (i * MODEL_BYTES // 2000), own))
    assert flatness(found).growth < 0
    assert not flatness(found).is_flat
