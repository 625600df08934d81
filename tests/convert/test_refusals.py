"""What cannot be converted is refused before any work, in one line that says what was found."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from convert import ConvertOptions, convert
from convert.checkpoint import open_checkpoint
from convert.errors import CheckpointError, ConvertError, TokenizerError, UnsupportedModel
from convert.model import plan_model
from tests.convert.support import plan_of
from tests.convert.tiny_checkpoints import TINY, save, stored, weights, write_tiny, write_weights

QWEN35, QWEN3, LLAMA = TINY["qwen35-double"], TINY["qwen3-tied"], TINY["llama"]


def refusal(folder) -> str:
    with pytest.raises(ConvertError) as caught:
        plan_model(open_checkpoint(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(tmp_path, tiny, **changes):
    """A checkpoint whose config.json says something else than its weights."""
    folder = write_tiny(tmp_path / "model", tiny)
    (folder / "config.json").write_text(json.dumps({**tiny.config, **changes}))
    return folder


def test_a_missing_folder_and_an_empty_one_are_no_checkpoints(tmp_path):
    assert refusal(tmp_path / "none").endswith("is not a folder")
    assert "is not a checkpoint: it has no config.json" in refusal(tmp_path)


def test_a_folder_without_weights_is_no_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert "it has neither model.safetensors nor" in refusal(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "only safetensors are read" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["[1", "[" * 100_000])
def test_a_config_that_is_no_json_is_refused(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    assert "cannot be read as JSON" in refusal(tmp_path)


def test_a_config_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    assert "holds list, not an object" in refusal(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    folder = write_tiny(tmp_path / "model", QWEN3, n_shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "lacks 1 of 3 shards, first model-00002-of-00003.safetensors" in refusal(folder)


def test_an_index_that_names_an_absent_tensor_is_refused(tmp_path):
    folder = write_tiny(tmp_path / "model", QWEN3, n_shards=2)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.extra.weight"] = "model-00001-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names tensor model.extra.weight in model-00001-of-00002.safetensors, which does not" in refusal(
        folder
    )


def test_an_index_cannot_reach_outside_its_folder(tmp_path):
    folder = write_tiny(tmp_path / "model", QWEN3)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../a.safetensors"}}')
    assert "names a shard outside its folder" in refusal(folder)


@pytest.mark.parametrize("damage", ["truncated", "header", "deep", "empty"])
def test_a_damaged_weight_file_is_refused(damage, tmp_path):
    folder = write_tiny(tmp_path / "model", QWEN3)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    deep = struct.pack("<Q", 100_000) + b"[" * 100_000
    damaged = {"truncated": content[:-10], "header": b"\xff" * 100, "deep": deep, "empty": b""}
    path.write_bytes(damaged[damage])
    assert ("truncated or damaged" if damage == "truncated" else "is not a safetensors file") in refusal(
        folder
    )


def test_quantized_weights_and_foreign_types_are_refused(tmp_path):
    folder = changed(tmp_path, QWEN3, quantization_config={"quant_method": "gptq"})
    assert "is quantized already (gptq)" in refusal(folder)
    save(tmp_path / "model.safetensors", {"x": ("F8_E4M3", (4,), bytes(4))})
    (tmp_path / "config.json").write_text("{}")
    assert "tensor x is stored as F8_E4M3; F32, F16 and BF16 are supported" in refusal(tmp_path)


def test_a_missing_tensor_an_unexpected_one_and_a_wrong_shape_are_named(tmp_path):
    tensors = weights(QWEN3)
    folder = write_tiny(tmp_path / "model", QWEN3)
    name = "model.layers.1.mlp.up_proj.weight"
    write_weights(folder, stored({key: value for key, value in tensors.items() if key != name}, "BF16"))
    assert refusal(folder) == f"the checkpoint lacks 1 tensors, first {name}"
    write_weights(folder, stored({**tensors, "model.odd.weight": np.ones(3)}, "BF16"))
    assert refusal(folder) == "1 tensors are not part of this architecture, first model.odd.weight"
    write_weights(folder, stored({**tensors, name: np.ones((96, 32))}, "BF16"))
    assert refusal(folder) == f"tensor {name} has shape [96, 32], config.json asks for [96, 64]"


@pytest.mark.parametrize(
    ("tiny", "changes", "found"),
    [
        (
            QWEN3,
            {"architectures": ["GPT2LMHeadModel"]},
            "config.json names GPT2LMHeadModel; supported: Llama",
        ),
        (QWEN3, {"architectures": None}, "config.json names no architecture"),
        (QWEN3, {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
        (QWEN3, {"attention_bias": True}, "attention_bias is true"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias is true"),
        (QWEN3, {"use_sliding_window": True}, "use_sliding_window is true"),
        (
            QWEN3,
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
            "rope_type is 'yarn'; supported here: default",
        ),
        (
            LLAMA,
            {"rope_parameters": {"rope_type": "linear"}},
            "rope_type is 'linear'; supported here: default, llama3",
        ),
        (
            LLAMA,
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "llama3 rope lacks low_freq_factor",
        ),
        (QWEN3, {"num_key_value_heads": 3}, "4 heads do not divide into 3 key/value heads"),
        (QWEN3, {"num_hidden_layers": "three"}, "num_hidden_layers is 'three', a whole number up to 4096 is"),
        (
            QWEN3,
            {"tie_word_embeddings": False},
            "tie_word_embeddings is false, but lm_head.weight is missing",
        ),
        (TINY["qwen2"], {"head_dim": 32}, "head_dim 32 times 4 heads is not hidden_size 64"),
        (QWEN35, {"linear_key_head_dim": 32}, "linear_key_head_dim 32 differs from linear_value_head_dim 16"),
        (QWEN35, {"linear_num_value_heads": 3}, "3 linear value heads do not divide into 2 key heads"),
        (QWEN35, {"layer_types": ["linear_attention"] * 3}, "layer_types must name 4 layers"),
        (QWEN35, {"layer_types": ["sliding_attention"] * 4}, "layer_types must name 4 layers"),
        (QWEN35, {"attention_bias": True}, "attention_bias is true"),
    ],
)
def test_what_llama_cpp_cannot_express_is_refused(tiny, changes, found, tmp_path):
    assert found in refusal(changed(tmp_path, tiny, **changes))


@pytest.mark.parametrize(
    ("sections", "found"),
    [
        ([8, 0, 0], "mrope_section [8, 0, 0] leaves rotation pair 1 without a position"),
        ([0, 0, 0], "three sizes, not all zero"),
        ([4, 4], "three sizes"),
    ],
)
def test_rope_sections_that_llama_cpp_would_rotate_wrongly_are_refused(sections, found, tmp_path):
    rope = {**QWEN35.config["rope_parameters"], "mrope_section": sections}
    assert found in refusal(changed(tmp_path, QWEN35, rope_parameters=rope))


def test_an_unusual_epsilon_is_only_warned_of(tmp_path):
    plan = plan_of(changed(tmp_path, QWEN35, rms_norm_eps=1e-5))
    assert plan.notes == (
        "rms_norm_eps is 1e-05, not 1e-06: llama.cpp will differ slightly from transformers",
    )


def test_a_full_attention_interval_stands_in_for_missing_layer_types(tmp_path):
    config = {key: value for key, value in QWEN35.config.items() if key != "layer_types"}
    folder = write_tiny(tmp_path / "model", QWEN35)
    (folder / "config.json").write_text(json.dumps({**config, "full_attention_interval": 4}))
    fields = {field.key: field.value for field in plan_of(folder).fields}
    assert fields["qwen35.attention.recurrent_layers"] == (True, True, True, False)


def test_a_head_that_repeats_the_embedding_is_dropped_and_one_that_differs_is_kept(tmp_path):
    tensors = weights(QWEN3)
    folder = write_tiny(tmp_path / "model", QWEN3)
    embedding = tensors["model.embed_tokens.weight"]
    for tied in (True, False):
        (folder / "config.json").write_text(json.dumps({**QWEN3.config, "tie_word_embeddings": tied}))
        write_weights(folder, stored({**tensors, "lm_head.weight": embedding}, "BF16"))
        plan = plan_of(folder)
        assert "output.weight" not in [tensor.name for tensor in plan.tensors]
        assert plan.notes == ("lm_head.weight equals the embedding: dropped (0.00 GB)",)
    (folder / "config.json").write_text(json.dumps(QWEN3.config))
    write_weights(folder, stored({**tensors, "lm_head.weight": embedding * 2}, "BF16"))
    plan = plan_of(folder)
    assert plan.tensors[-1].name == "output.weight"
    assert "differs from the embedding although config.json ties them: kept" in plan.notes[0]


def test_vision_and_mtp_tensors_are_dropped_and_said_so(tiny):
    assert plan_of(tiny("qwen35-vision")).notes == (
        "1 tensors dropped: multi-token prediction head",
        "1 tensors dropped: vision tower",
    )


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda parsed: parsed["model"].update(type="WordPiece"),
            "is a WordPiece tokenizer; only byte-level BPE",
        ),
        (lambda parsed: parsed["model"].update(byte_fallback=True), "without byte-level pieces"),
        (lambda parsed: parsed.update(decoder=None), "without byte-level pieces"),
        (lambda parsed: parsed["model"].update(merges=[]), "has no merges"),
        (lambda parsed: parsed["model"].update(merges=[["a", "qqq"]]), "is not a tokenizer"),
        (
            lambda parsed: parsed["model"]["vocab"].update({"huge": 999}),
            "token id 999, the embedding has 304 rows",
        ),
    ],
)
def test_a_tokenizer_that_is_not_byte_level_bpe_is_refused(change, found, tmp_path):
    folder = write_tiny(tmp_path / "model", QWEN3)
    parsed = json.loads((folder / "tokenizer.json").read_text())
    change(parsed)
    (folder / "tokenizer.json").write_text(json.dumps(parsed))
    with pytest.raises(TokenizerError, match=found):
        convert(ConvertOptions(str(folder), tmp_path / "out", pre="qwen2"))
    assert not (tmp_path / "out").exists()


def test_an_unknown_tokenizer_is_refused_and_not_guessed(tiny, tmp_path):
    with pytest.raises(TokenizerError, match=r"like no known tokenizer .* --pre if you know"):
        convert(ConvertOptions(str(tiny("qwen3-tied")), tmp_path / "out"))


def test_a_checkpoint_without_tokenizer_is_refused(tmp_path):
    folder = write_tiny(tmp_path / "model", QWEN3)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        convert(ConvertOptions(str(folder), tmp_path / "out", pre="qwen2"))


def test_a_name_that_is_no_folder_and_no_repository_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is neither a folder nor a repository name"):
        convert(ConvertOptions("./no/such/folder", tmp_path))


def test_a_llama_of_an_unsupported_layout_is_not_taken_for_a_supported_one(tmp_path):
    folder = write_tiny(
        tmp_path / "model", replace(LLAMA, extra={"model.layers.0.self_attn.q_proj.bias": (64,)})
    )
    with pytest.raises(CheckpointError, match="1 tensors are not part of this architecture"):
        plan_of(folder)
    assert issubclass(UnsupportedModel, ConvertError)


def test_the_outer_configuration_of_a_vision_checkpoint_says_whether_the_head_is_tied(tmp_path):
    tiny = TINY["qwen35-vision"]
    config = {**tiny.config, "text_config": {**tiny.text, "tie_word_embeddings": False}}
    folder = write_tiny(tmp_path / "model", tiny)
    (folder / "config.json").write_text(json.dumps(config))
    assert plan_of(folder).tensors[-1].name == "output_norm.weight"


NONSENSE = (None, "x", -1, 0, 1.5, [], {}, [None], True, 10**30)


@pytest.mark.parametrize("tiny", [QWEN35, LLAMA], ids=["qwen35", "llama"])
def test_any_value_of_config_json_may_be_nonsense_and_is_at_most_one_line(tiny, tmp_path):
    folder = write_tiny(tmp_path / "model", tiny)
    more = (
        "rope_scaling",
        "rope_parameters",
        "layer_types",
        "head_dim",
        "text_config",
        "quantization_config",
    )
    for key in (*tiny.config, *more):
        for value in NONSENSE:
            (folder / "config.json").write_text(json.dumps({**tiny.config, key: value}))
            assert "\n" not in outcome(folder)


def outcome(folder) -> str:
    """The refusal, or nothing where a plan can be made; any other exception fails the test."""
    try:
        plan_of(folder)
    except ConvertError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("key", ["data_offsets", "shape", "dtype"])
def test_any_entry_of_a_weight_file_may_be_nonsense_and_is_at_most_one_line(key, tmp_path):
    tensors = {"x": ("F32", (4,), bytes(16))}
    for value in (*NONSENSE, [-16, 0], [0, 10**12], [16, 0], [-4, -4]):
        save(tmp_path / "model.safetensors", tensors)
        content = (tmp_path / "model.safetensors").read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header["x"][key] = value
        text = json.dumps(header).encode()
        (tmp_path / "model.safetensors").write_bytes(
            len(text).to_bytes(8, "little") + text + content[8 + length :]
        )
        (tmp_path / "config.json").write_text("{}")
        assert refusal(tmp_path)
