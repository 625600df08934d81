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
N_WITH_SETTINGS = 2000


def composed(material: Material, n_examples: int, path: Path) -> list[dict]:
    write_examples(Composer(material, SEED, HeldOut.read()), n_examples, path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def material() -> Material:
    """All of it."""
    return read_material()


@pytest.fixture(scope="session")
def plain_material(material) -> Material:
    """As `--without 'settings_*'` reads it: the material of the first part of the training."""

    def plain(entries):
        return tuple(entry for entry in entries if not entry.file.startswith("settings_"))

    tools = {name: tool for name, tool in material.tools.items() if not tool.file.startswith("settings_")}
    return Material(tools, plain(material.no_tool), plain(material.dialogs), plain(material.settings))


@pytest.fixture(scope="session")
def examples_path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo") / "examples.jsonl"


@pytest.fixture(scope="session")
def plain_groups(plain_material, examples_path) -> list[dict]:
    return composed(plain_material, N_EXAMPLES, examples_path)


@pytest.fixture(scope="session")
def groups(plain_groups, material, tmp_path_factory) -> list[dict]:
    """Those of the first part and some with settings."""
    path = tmp_path_factory.mktemp("settings") / "examples.jsonl"
    return plain_groups + composed(material, N_WITH_SETTINGS, path)


@pytest.fixture(scope="session")
def tokenizer(demo_model_path):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(tokenizer_json(demo_model_path)))
