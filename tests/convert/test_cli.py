"""The `convert` and `imatrix` commands: data on standard output, one line for a known error, exit codes."""

from __future__ import annotations

import json

import pytest

from convert.gguf_file import read_gguf
from edge.cli.start import run
from tests.convert.tiny_adapters import lora_modules, write_adapter
from tests.convert.tiny_checkpoints import TINY, write_tiny

pytestmark = pytest.mark.model
NAME = "qwen35-double"


@pytest.fixture
def cli(capsys):
    def call(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_json_is_one_document_with_every_file_and_check(cli, tiny, tmp_path):
    adapter = write_adapter(tmp_path / "my-lora", lora_modules(TINY[NAME]))
    code, out, err = cli(
        "convert", tiny(NAME), "--adapter", adapter, "--out", tmp_path / "out", "--pre", "qwen35", "--json",
        "--type", "BF16", "--type", "q8_0", "--threads", 1,
    )  # fmt: skip
    assert code == 0, err
    document = json.loads(out)
    assert [file["type"] for file in document["files"]] == ["bf16", "q8_0"]
    assert [file["path"] for file in document["files"]] == [
        str(tmp_path / "out" / f"{NAME}-{kind}.gguf") for kind in ("bf16", "q8_0")
    ]
    assert all(len(file["checks"]) == 7 for file in document["files"])
    metadata = read_gguf(tmp_path / "out" / f"{NAME}-q8_0.gguf").metadata
    assert metadata["smoltools_edge.adapter.0.name"] == "my-lora"
    assert len(str(metadata["smoltools_edge.adapter.0.sha256"])) == 64
    assert metadata["general.base_model.0.repo_url"] == "https://huggingface.co/someone/base-model"
    assert metadata["smoltools_edge.quantization.recipe"] == "q8_0 by llama_model_quantize from bf16"


def test_people_get_a_table_of_checks_and_progress_stays_off_standard_output(cli, tiny, tmp_path):
    code, out, err = cli("convert", tiny(NAME), "--out", tmp_path / "out", "--pre", "qwen35", "--threads", 1)
    assert code == 0, err
    assert out.count("  ok  weights") == 3
    assert "equal the checkpoint bit for bit" in out
    assert "fallback type" in out
    assert err.splitlines()[:2] == ["write bf16", "verify bf16"]


def test_a_known_error_is_one_line_and_exit_code_1(cli, tmp_path):
    code, out, err = cli("convert", tmp_path, "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert err == f"error: {tmp_path} is not a checkpoint: it has no config.json\n"


def test_bad_usage_is_exit_code_2(cli, tmp_path):
    assert cli("convert")[0] == 2
    assert cli("convert", tmp_path, "--out", tmp_path, "--verify", "some")[0] == 2


def test_a_known_model_gets_the_catalogues_template_and_trained_context(cli, tmp_path):
    folder = write_tiny(tmp_path / "smol-tools-4b-16k", TINY[NAME])
    code, _, err = cli(
        "convert", folder, "--out", tmp_path / "out", "--pre", "qwen35", "--type", "bf16", "--verify", "off"
    )
    assert code == 0, err
    assert "its chat template is the catalogue's" in err
    metadata = read_gguf(tmp_path / "out" / "smol-tools-4b-16k-bf16.gguf").metadata
    assert metadata["smoltools_edge.trained_context"] == 16384
    assert metadata["qwen35.context_length"] == 512
    assert "<tool_call>" in str(metadata["tokenizer.chat_template"])


def test_a_given_template_wins_over_the_catalogues(cli, tmp_path):
    folder = write_tiny(tmp_path / "smol-tools-4b", TINY[NAME])
    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages }}")
    code, _, err = cli(
        "convert", folder, "--out", tmp_path / "out", "--pre", "qwen35", "--type", "bf16", "--verify", "off",
        "--chat-template", template, "--trained-context", 99,
    )  # fmt: skip
    assert code == 0, err
    metadata = read_gguf(tmp_path / "out" / "smol-tools-4b-bf16.gguf").metadata
    assert metadata["tokenizer.chat_template"] == "{{ messages }}"
    assert metadata["smoltools_edge.trained_context"] == 99


def test_an_importance_matrix_is_made_from_the_shipped_conversations_and_used(cli, tiny, tmp_path):
    out = tmp_path / "out"
    common = ("convert", tiny(NAME), "--out", out, "--pre", "qwen35", "--threads", 1, "--verify", "off")
    assert cli(*common, "--type", "bf16")[0] == 0
    matrix = tmp_path / "tiny.imatrix.gguf"
    code, text, err = cli("imatrix", out / f"{NAME}-bf16.gguf", "--out", matrix, "--threads", 1, "--json")
    assert code == 0, err
    document = json.loads(text)
    assert document["weights"] == 31
    assert document["tokens"] > 5000
    code, _, err = cli(*common, "--type", "q4_k_m", "--imatrix", matrix)
    assert code == 0, err
    metadata = read_gguf(out / f"{NAME}-q4_k_m.gguf").metadata
    assert (
        metadata["smoltools_edge.quantization.recipe"]
        == "q4_k_m by llama_model_quantize from bf16 with imatrix"
    )
    assert cli("imatrix", out / f"{NAME}-bf16.gguf", "--out", matrix)[0] == 1


def test_calibration_can_be_plain_text_or_conversations_of_ones_own(cli, tiny, tmp_path):
    out = tmp_path / "out"
    arguments = ("--out", out, "--pre", "qwen35", "--type", "bf16", "--verify", "off")
    assert cli("convert", tiny(NAME), *arguments)[0] == 0
    model = out / f"{NAME}-bf16.gguf"
    plain, lines, broken = tmp_path / "a.txt", tmp_path / "b.jsonl", tmp_path / "c.jsonl"
    plain.write_text("the name of the call")
    lines.write_text('{"messages": [{"role": "user", "content": "the name"}]}\n')
    broken.write_text('{"messages": 1}\n')
    for file in (plain, lines):
        code, _, err = cli("imatrix", model, "--calibration", file, "--out", tmp_path / f"{file.name}.gguf")
        assert code == 0, err
    code, _, err = cli("imatrix", model, "--calibration", broken, "--out", tmp_path / "c.gguf")
    assert (code, err) == (1, "error: line 1 of the calibration file has no messages\n")
    broken.write_text('{"messages": ' + "[" * 100_000)
    code, _, err = cli("imatrix", model, "--calibration", broken, "--out", tmp_path / "c.gguf")
    assert code == 1
    assert err.startswith("error: line 1 of the calibration file is not JSON")
