"""The builder of the demo model on a tiny base: what it writes, and what it says of parts that cannot be used."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest

from convert.gguf_file import read_gguf
from edge.cli.build_demo import build_demo
from edge.errors import CatalogueError
from edge.models.build import BuildJob
from tests.convert.test_dequantize import HEADER, SHAPE
from tests.convert.tiny_adapters import write_adapter
from tests.tiny_gguf import tensors, write_gguf

pytestmark = pytest.mark.model
MODULES = {"model.layers.1.mlp.down_proj": (64, 96), "model.layers.1.self_attn.v_proj": (32, 64)}


@pytest.fixture
def job(tmp_path) -> BuildJob:
    """A job whose adapter is for the second layer alone, as the real one leaves out the first layers."""
    for name in ("work", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "template.jinja").write_text("{{ messages[0].content }} of our own")
    return BuildJob(
        name="demo",
        license="Apache-2.0",
        base=write_gguf(tmp_path / "base", SHAPE, change=HEADER),
        base_name="tiny-1.0",
        adapter=write_adapter(tmp_path / "adapter", MODULES),
        chat_template=tmp_path / "template.jinja",
        quantizations=("Q8_0", "Q4_K_M", "BF16"),
        scratch=tmp_path / "work",
        out=tmp_path / "out",
    )


def values(file, name) -> np.ndarray:
    tensor = file.tensors[name]
    raw = tensor.read_rows(0, tensor.n_rows)
    return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[tensor.type]).reshape(tensor.shape)


def test_all_files_hold_the_base_with_the_adapter_and_the_template(job):
    lines: list[str] = []
    build_demo(job, lines.append)
    made = sorted(job.out.glob("*.gguf"))
    assert [path.name for path in made] == ["demo-bf16.gguf", "demo-q4_k_m.gguf", "demo-q8_0.gguf"]
    before = tensors(SHAPE, 0)
    for path in made:
        file = read_gguf(path)
        assert file.metadata["tokenizer.chat_template"] == "{{ messages[0].content }} of our own"
        assert file.metadata["general.license"] == "apache-2.0"
        assert file.metadata["smoltools_edge.source"] == "tiny-1.0"
        moved = {name: np.abs(values(file, name) - before[name]).mean() for name in before}
        changed = {name for name in before if moved[name] > 0.05 * np.abs(before[name]).mean()}
        assert {"blk.1.ffn_down.weight", "blk.1.attn_v.weight"} <= changed
        if "q4" not in path.name:
            assert changed == {"blk.1.ffn_down.weight", "blk.1.attn_v.weight"}
    assert lines == [
        "writing the base as a checkpoint",
        "merging the adapter and writing BF16", "checking BF16",
        "quantizing to Q8_0", "checking Q8_0", "quantizing to Q4_K_M", "checking Q4_K_M",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("adapter_config.json", "{", "cannot be read as JSON"),
        ("adapter_config.json", json.dumps({"peft_type": "LOHA"}), "peft_type is 'LOHA'"),
        (
            "adapter_model.safetensors",
            "version https://git-lfs.github.com/spec/v1",
            "is not a safetensors file",
        ),
        ("adapter_model.safetensors", "", "is not a safetensors file"),
    ],
)
def test_a_damaged_adapter_is_one_line_and_leaves_no_file(job, name, content, found):
    (job.adapter / name).write_text(content)
    with pytest.raises(CatalogueError, match="demo could not be built: ") as error:
        build_demo(job, lambda line: None)
    assert found in str(error.value)
    assert "\n" not in str(error.value)
    assert list(job.out.iterdir()) == []


def test_a_truncated_adapter_is_one_line(job):
    path = job.adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        CatalogueError, match=r"demo could not be built: .* is truncated or damaged at tensor"
    ):
        build_demo(job, lambda line: None)


def test_a_base_that_is_no_model_is_one_line(job):
    job.base.write_bytes(b"<html>not found</html>")
    with pytest.raises(CatalogueError, match=r"demo could not be built: .*is not a readable GGUF file"):
        build_demo(job, lambda line: None)
