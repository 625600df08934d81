"""One reader of GBNF for all grammar tests: llama.cpp with a real vocabulary, no weights."""

from pathlib import Path

import pytest

from tests.grammar.llama_gbnf import GbnfReader


@pytest.fixture(scope="session")
def gbnf_reader(demo_model_path: Path) -> GbnfReader:
    return GbnfReader(demo_model_path)
