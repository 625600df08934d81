"""The composed examples and the model's tokenizer, made once a session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convert.dequantize import tokenizer_json
from demo.compose import write_examples
from demo.composer import Composer
from demo.held_out import HeldOut
from demo.material import Material
from demo.reading import read_material

N_EXAMPLES, SEED = 9500, 7


@pytest.fixture(scope="session")
def material() -> Material:
    return read_material(without="settings_*")


@pytest.fixture(scope="session")
def examples_path(material, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "examples.jsonl"
    write_examples(Composer(material, SEED, HeldOut.read()), N_EXAMPLES, path)
    return path


@pytest.fixture(scope="session")
def groups(examples_path) -> list[dict]:
    return [json.loads(line) for line in examples_path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def tokenizer(demo_model_path):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(tokenizer_json(demo_model_path)))
