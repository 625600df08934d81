"""Tiny checkpoints, written once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.convert.tiny_checkpoints import TINY, write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a named tiny checkpoint. Tests do not change it."""

    @cache
    def folder(name: str) -> Path:
        return write_tiny(tmp_path_factory.mktemp("tiny") / name, TINY[name])

    return folder
