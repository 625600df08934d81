"""What a program imports."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import edge.tools
from edge.tools.config import ToolsConfig
from edge.tools.policy import Policy

DOCS = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", edge.tools.__all__)
def test_every_exported_name_is_there(name):
    assert getattr(edge.tools, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edge.tools.nothing


def test_the_files_of_the_documentation_are_valid():
    tools, policy = (tomllib.loads(block.split("```")[0]) for block in DOCS.split("```toml\n")[1:3])
    assert ToolsConfig.model_validate(tools).tool[0].name == "find_text"
    assert len(Policy.model_validate(policy).rule) == 3


def test_the_program_of_the_documentation_runs():
    text = DOCS.split("```python\n")[1].split("```")[0]
    namespace: dict[str, object] = {}
    exec(compile(text, "tools.md", "exec", dont_inherit=True), namespace)
    assert namespace["add_note"].effects == {"write"}
