"""Fixtures that all rooms share: a clean environment, the demo model, an engine on it."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.engine.context import ContextOptions
from edge.engine.engine import Engine
from edge.models.load import load
from edge.models.store import resolve

# A shell's background jobs ignore Ctrl-C; then neither a test nor a program that it starts would get one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the developer's own settings, or writes into the developer's folders."""
    for name in os.environ:
        if name.startswith("SMOLTOOLS_EDGE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SMOLTOOLS_EDGE_STATE_CACHE", "off")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Python's cycle collector stands still, so that what waits for it shows."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def demo_model_path() -> Path:
    """The demo model's file; built once in the user's cache if it is not there."""
    return resolve("demo", lambda line: None).path


@pytest.fixture(scope="session")
def demo_engine(demo_model_path: Path) -> Iterator[Engine]:
    """One engine on the demo model for all tests; one thread, so that tests beside it are not starved."""
    with load("demo", context=ContextOptions(n_ctx=2048, n_threads=1)) as engine:
        yield engine
