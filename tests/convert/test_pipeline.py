"""The straight line: a checkpoint in, checked files and a manifest out, and nothing half-made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convert import ConvertOptions, convert
from convert.errors import ConvertError, OutputError, QuantizeError, VerifyError, WeightError
from convert.gguf_file import read_gguf
from tests.convert.tiny_checkpoints import TINY, save, stored, weights, write_tiny

pytestmark = pytest.mark.model


def options(folder: Path, out: Path, **changes) -> ConvertOptions:
    name = folder.name if folder.name in TINY else "qwen3-tied"
    return replace(
        ConvertOptions(str(folder), out, pre=TINY[name].pre, n_threads=1, types=("bf16",)), **changes
    )


@pytest.fixture(scope="module")
def three_files(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    steps = []
    result = convert(
        options(tiny("qwen35-double"), out, types=("bf16", "q8_0", "q4_k_m")),
        lambda progress: steps.append(progress),
    )
    return out, result, steps


def test_three_files_and_a_manifest_are_written_and_nothing_else(three_files):
    out, _, _ = three_files
    assert sorted(path.name for path in out.iterdir()) == [
        "qwen35-double-bf16.gguf",
        "qwen35-double-q4_k_m.gguf",
        "qwen35-double-q8_0.gguf",
        "qwen35-double.json",
    ]


def test_the_manifest_names_each_file_with_its_digest_and_size(three_files):
    out, result, _ = three_files
    for entry in json.loads(result.manifest.read_text())["files"]:
        content = (out / entry["path"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["size_bytes"] == len(content)
        assert entry["recipe"].startswith(f"{entry['type']} ")
        assert entry["imatrix_sha256"] is None


def test_every_check_is_done_for_every_file(three_files):
    _, result, _ = three_files
    for file in result.files:
        names = [check.name for check in file.checks]
        assert names == ["tensors", "metadata", "weights", "load", "tokens", "chat template", "decode"]


def test_matrices_take_the_files_type_and_what_llama_cpp_needs_in_float32_keeps_it(three_files):
    out, _, _ = three_files
    tensors = read_gguf(out / "qwen35-double-q8_0.gguf").tensors
    assert tensors["blk.0.attn_qkv.weight"].type == "Q8_0"
    kept = ("attn_norm.weight", "ssm_a", "ssm_dt.bias", "ssm_conv1d.weight", "ssm_norm.weight")
    assert {tensors[f"blk.0.{name}"].type for name in kept} == {"F32"}


def test_rows_that_do_not_fit_a_k_type_are_reported(three_files):
    _, result, _ = three_files
    by_type = {file.type: file for file in result.files}
    assert by_type["q8_0"].fallbacks == ()
    assert "blk.0.attn_gate.weight: Q5_0" in by_type["q4_k_m"].fallbacks


def test_progress_of_each_stage_rises_to_its_total(three_files):
    _, _, steps = three_files
    for stage in ("write bf16", "quantize q8_0", "quantize q4_k_m"):
        of_stage = [step for step in steps if step.stage == stage]
        done = [step.done for step in of_stage]
        assert done == sorted(done)
        assert of_stage[-1].done == of_stage[-1].total


def test_a_bf16_tensor_holds_the_checkpoints_very_bits(tiny, three_files):
    out, _, _ = three_files
    from convert.checkpoint import open_checkpoint

    source = open_checkpoint(tiny("qwen35-double")).tensors["model.layers.3.mlp.up_proj.weight"]
    written = read_gguf(out / "qwen35-double-bf16.gguf").tensors["blk.3.ffn_up.weight"]
    raw = source.read_rows(0, source.n_rows).view(np.uint8)
    assert np.array_equal(written.read_rows(0, written.n_rows), raw)


def test_quantized_only_needs_no_bf16_file_beside_it(tiny, tmp_path):
    result = convert(options(tiny("qwen3-tied"), tmp_path, types=("Q8_0",), verify="off"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qwen3-tied-q8_0.gguf", "qwen3-tied.json"]
    assert result.files[0].checks == ()


@pytest.mark.parametrize("name", ["f32", "f16", "q5_k_m", "q6_k", "q4_0"])
def test_other_types_are_made_by_name(name, tiny, tmp_path):
    result = convert(options(tiny("llama"), tmp_path, types=(name,)))
    assert result.files[0].path.name == f"llama-{name}.gguf"


def test_shards_give_the_same_file_as_one_piece(tmp_path):
    one = write_tiny(tmp_path / "one" / "qwen3-tied", TINY["qwen3-tied"])
    many = write_tiny(tmp_path / "many" / "qwen3-tied", TINY["qwen3-tied"], n_shards=3)
    digests = {
        convert(options(folder, tmp_path / f"out-{i}", verify="off")).files[0].sha256
        for i, folder in enumerate((one, many))
    }
    assert len(digests) == 1


def test_an_existing_file_is_kept_unless_forced(tiny, tmp_path):
    existing = tmp_path / "qwen3-tied-bf16.gguf"
    existing.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        convert(options(tiny("qwen3-tied"), tmp_path))
    assert existing.read_bytes() == b"mine"
    convert(options(tiny("qwen3-tied"), tmp_path, force=True, verify="off"))
    assert read_gguf(existing).architecture == "qwen3"


def test_a_full_disk_is_noticed_before_the_first_byte(tiny, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="GB free, the files need"):
        convert(options(tiny("qwen3-tied"), tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_a_weight_that_is_no_number_is_refused_by_name_and_leaves_nothing(value, word, tmp_path):
    tiny = TINY["qwen3-tied"]
    folder = write_tiny(tmp_path / "broken", tiny)
    tensors = weights(tiny)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save(folder / "model.safetensors", stored(tensors, "F16"))
    with pytest.raises(WeightError, match=rf"model\.layers\.1\.mlp\.up_proj\.weight holds {word}"):
        convert(options(folder, tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_value_beyond_f16_is_refused_and_not_made_infinite(tmp_path):
    tiny = TINY["qwen3-tied"]
    folder = write_tiny(tmp_path / "large", tiny)
    tensors = weights(tiny)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save(folder / "model.safetensors", stored(tensors, "BF16"))
    with pytest.raises(WeightError, match="beyond the range of F16"):
        convert(options(folder, tmp_path / "out", types=("f16",)))


def test_an_unknown_type_is_refused_before_any_work(tmp_path):
    with pytest.raises(QuantizeError, match="unknown type 'q9_z'; known: bf16, f16, f32"):
        convert(ConvertOptions("no/where", tmp_path, types=("q9_z",)))


def test_an_interrupted_run_leaves_nothing_that_looks_finished_and_can_be_repeated(tiny, tmp_path):
    def interrupt(progress):
        if progress.stage == "quantize q8_0":
            raise KeyboardInterrupt

    wanted = options(tiny("qwen3-tied"), tmp_path, types=("bf16", "q8_0"))
    with pytest.raises(KeyboardInterrupt):
        convert(wanted, interrupt)
    assert list(tmp_path.iterdir()) == []
    assert len(convert(wanted).files) == 2


def test_a_wrong_pre_tokenizer_is_caught_and_nothing_is_put_in_place(tiny, tmp_path):
    with pytest.raises(VerifyError, match="check 'tokens' failed: pre-tokenizer qwen2 splits"):
        convert(options(tiny("qwen35-double"), tmp_path, pre="qwen2"))
    assert list(tmp_path.iterdir()) == []


def test_all_errors_of_the_room_have_one_base():
    from convert import errors

    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, ConvertError)


def test_a_disk_that_fills_up_while_writing_is_one_line_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("convert.pipeline.write_gguf", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        convert(options(tiny("qwen3-tied"), tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_two_runs_into_one_folder_do_not_mix(tiny, tmp_path):
    def second(progress):
        if progress.stage == "write bf16":
            convert(options(tiny("qwen3-tied"), tmp_path))

    with pytest.raises(OutputError, match="another conversion is writing into"):
        convert(options(tiny("qwen3-tied"), tmp_path), second)


def test_a_type_made_later_joins_the_manifest(tiny, tmp_path):
    for kind in ("bf16", "q8_0"):
        convert(options(tiny("qwen3-tied"), tmp_path, types=(kind,), verify="off"))
    files = json.loads((tmp_path / "qwen3-tied.json").read_text())["files"]
    assert [entry["type"] for entry in files] == ["bf16", "q8_0"]


@pytest.mark.parametrize("kind", ["iq2_xxs", "q2_k_s"])
def test_a_type_that_needs_an_importance_matrix_is_refused_without_one(kind, tiny, tmp_path):
    with pytest.raises(QuantizeError, match=f"{kind} is too coarse without an importance matrix"):
        convert(options(tiny("qwen3-tied"), tmp_path, types=(kind,)))


def test_unusual_ends_of_generation_reach_the_file(tmp_path):
    folder = write_tiny(tmp_path / "qwen3-tied", TINY["qwen3-tied"])
    parsed = json.loads((folder / "tokenizer.json").read_text())
    ids = {entry["content"]: entry["id"] for entry in parsed["added_tokens"]}
    ends = [ids["</tool_call>"], ids["<|im_end|>"], ids["</think>"]]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    result = convert(options(folder, tmp_path / "out"))
    metadata = read_gguf(result.files[0].path).metadata
    assert metadata["tokenizer.ggml.eos_token_id"] == ids["<|im_end|>"]
    assert metadata["tokenizer.ggml.eot_token_id"] == ids["</think>"]
    assert metadata["tokenizer.ggml.eom_token_id"] == ids["</tool_call>"]


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ""])
def test_a_name_that_leaves_the_output_folder_is_refused(name, tiny, tmp_path):
    folder = Path("/") if name == "" else tiny("qwen3-tied")
    with pytest.raises(OutputError, match="cannot begin a file name"):
        convert(options(tiny("qwen3-tied"), tmp_path, checkpoint=str(folder), name=name or None))
