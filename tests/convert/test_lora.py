"""LoRA adapters are merged as peft merges them, and everything else is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from convert.errors import AdapterError
from convert.floats import to_float32
from convert.lora import open_adapter, row_reader
from tests.convert.support import plan_of
from tests.convert.tiny_adapters import lora_modules, write_adapter
from tests.convert.tiny_checkpoints import TINY, save, stored, weights, write_tiny

QUERY = "model.layers.0.self_attn.q_proj"
SHAPE = (128, 64)


def merged(folder: Path, name: str, *adapters: Path) -> np.ndarray:
    """The weight as it will be written, before its transform."""
    source = plan_of(folder, adapters).sources[name]
    return to_float32(row_reader(source)(0, source.stored.n_rows), source.kind)


def factors(adapter: Path, module: str = QUERY) -> tuple[np.ndarray, np.ndarray]:
    pair = open_adapter(adapter).pairs[f"{module}.weight"]
    return pair.a.read_rows(0, pair.a.n_rows), pair.b.read_rows(0, pair.b.n_rows)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Stored in F32, so that sums can be compared closely."""
    folder = write_tiny(tmp_path_factory.mktemp("base") / "qwen3", TINY["qwen3-tied"])
    save(folder / "model.safetensors", stored(weights(TINY["qwen3-tied"]), "F32"))
    return folder


@pytest.fixture(scope="module")
def original() -> dict[str, np.ndarray]:
    return weights(TINY["qwen3-tied"])


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"lora_alpha": 8}, 2.0),
        ({"lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"lora_alpha": 8, "alpha_pattern": {"q_proj": 2}}, 0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"layers.0.self_attn.q_proj": 16}}, 4.0),
        ({"lora_alpha": 8, "alpha_pattern": {"layers.1.self_attn.q_proj": 16}}, 2.0),
        ({"lora_alpha": 8, "fan_in_fan_out": True}, 2.0),
    ],
)
def test_the_delta_is_scaled_by_alpha_over_rank(settings, scale, base, original, tmp_path):
    adapter = write_adapter(tmp_path / "a", {QUERY: SHAPE}, **settings)
    a, b = factors(adapter)
    wanted = original[f"{QUERY}.weight"] + scale * (b @ a)
    assert np.allclose(merged(base, f"{QUERY}.weight", adapter), wanted, atol=1e-5)


def test_a_rank_pattern_changes_the_scale_of_that_module_only(base, original, tmp_path):
    key = "model.layers.1.self_attn.q_proj"
    adapter = write_adapter(
        tmp_path / "a",
        {QUERY: SHAPE, key: SHAPE},
        ranks={key: 2},
        rank_pattern={"layers.1.self_attn.q_proj": 2},
    )
    for module, scale in ((QUERY, 8 / 4), (key, 8 / 2)):
        a, b = factors(adapter, module)
        wanted = original[f"{module}.weight"] + scale * (b @ a)
        assert np.allclose(merged(base, f"{module}.weight", adapter), wanted, atol=1e-5)


def test_two_adapters_add_up(base, original, tmp_path):
    first = write_adapter(tmp_path / "a", {QUERY: SHAPE}, seed=1)
    second = write_adapter(tmp_path / "b", {QUERY: SHAPE}, seed=2, lora_alpha=4)
    (a1, b1), (a2, b2) = factors(first), factors(second)
    wanted = original[f"{QUERY}.weight"] + 2 * (b1 @ a1) + 1 * (b2 @ a2)
    assert np.allclose(merged(base, f"{QUERY}.weight", first, second), wanted, atol=1e-5)


def test_modules_to_save_replace_the_weight(base, tmp_path):
    norm = np.linspace(0, 1, 64)
    adapter = write_adapter(tmp_path / "a", {QUERY: SHAPE}, saved={"model.norm": norm})
    assert np.allclose(merged(base, "model.norm.weight", adapter).ravel(), norm)


def test_a_trained_head_of_a_tied_model_becomes_a_tensor_of_its_own(base, original, tmp_path):
    head = np.ones((304, 64))
    plan = plan_of(base, (write_adapter(tmp_path / "a", {QUERY: SHAPE}, saved={"lm_head": head}),))
    assert [tensor.name for tensor in plan.tensors][-1] == "output.weight"
    embedding = row_reader(plan.sources["model.embed_tokens.weight"])(0, 304)
    assert np.array_equal(embedding, original["model.embed_tokens.weight"])


def test_a_trained_embedding_of_a_tied_model_leaves_the_head_as_it_was(base, original, tmp_path):
    adapter = write_adapter(tmp_path / "a", {}, embeddings={"model.embed_tokens": (304, 64)})
    plan = plan_of(base, (adapter,))
    head = row_reader(plan.sources["lm_head.weight"])(0, 304)
    assert np.array_equal(head, original["model.embed_tokens.weight"])
    pair = open_adapter(adapter).pairs["model.embed_tokens.weight"]
    a, b = pair.a.read_rows(0, 4), pair.b.read_rows(0, 64)
    wanted = original["model.embed_tokens.weight"] + 2 * (b @ a).T
    assert np.allclose(merged(base, "model.embed_tokens.weight", adapter), wanted, atol=1e-5)


def test_an_adapter_that_trained_head_and_embedding_alike_stays_tied(base, tmp_path):
    same = np.full((304, 64), 0.5)
    adapter = write_adapter(tmp_path / "a", {}, saved={"lm_head": same, "model.embed_tokens": same})
    plan = plan_of(base, (adapter,))
    assert "output.weight" not in [tensor.name for tensor in plan.tensors]
    assert any(note.startswith("lm_head.weight equals the embedding: dropped") for note in plan.notes)


def test_an_adapter_of_the_vision_model_fits_the_text_model_and_its_other_parts_are_dropped(tiny, tmp_path):
    adapter = write_adapter(
        tmp_path / "a",
        {
            "model.language_model.layers.3.self_attn.q_proj": (256, 64),
            "model.visual.blocks.0.attn.proj": (32, 32),
        },
    )
    plan = plan_of(tiny("qwen35-double"), (adapter,))
    assert plan.sources["model.layers.3.self_attn.q_proj.weight"].is_merged
    assert any("model.visual.blocks.0.attn.proj.weight dropped: vision tower" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' changes the base weights"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
        ({"lora_bias": True}, "lora_bias = True"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"use_qalora": True, "qalora_group_size": 16}, "use_qalora = True"),
        ({"some_new_thing": {"a": 1}}, "some_new_thing"),
        ({"r": 8, "ranks": {QUERY: 4}}, "rank 4 and 4, its configuration says 8"),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(settings, found, tmp_path):
    adapter = write_adapter(tmp_path / "a", {QUERY: SHAPE}, **settings)
    with pytest.raises(AdapterError, match=found):
        open_adapter(adapter)


def test_settings_that_are_off_or_harmless_are_accepted(tmp_path):
    settings = {"layer_replication": None, "lora_bias": False, "lora_dropout": 0.05, "exclude_modules": None}
    assert open_adapter(write_adapter(tmp_path / "a", {QUERY: SHAPE}, **settings)).pairs


def test_the_configuration_that_peft_0_21_writes_is_accepted(tmp_path):
    written = {
        "alora_invocation_tokens": None, "arrow_config": None, "auto_mapping": None, "base_model_name_or_path": None,
        "corda_config": None, "ensure_weight_tying": False, "eva_config": None, "inference_mode": True,
        "init_lora_weights": True, "kasa_config": None, "layers_pattern": None, "layers_to_transform": [2, 3],
        "loftq_config": {}, "lora_ga_config": None, "megatron_config": None, "megatron_core": "megatron.core",
        "monteclora_config": None, "peft_version": "0.21.2", "qalora_group_size": 16, "revision": None,
        "target_parameters": None, "trainable_token_indices": None, "use_bdlora": None, "use_qalora": False,
        "velora_config": None,
    }  # fmt: skip
    assert open_adapter(write_adapter(tmp_path / "a", {QUERY: SHAPE}, **written)).pairs


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ({f"base_model.model.{QUERY}.lora_magnitude_vector": np.ones(4)}, "DoRA tensor"),
        ({"base_model.model.x.lora_A.weight": np.ones((4, 4))}, "x has lora_A, not lora_A and lora_B"),
        ({f"base_model.model.{QUERY}.lora_C.weight": np.ones(4)}, "unknown to plain LoRA"),
        ({"something.else": np.ones(4)}, "unknown to plain LoRA"),
        (
            {
                "base_model.model.c.lora_A.weight": np.ones((4, 64, 4)),
                "base_model.model.c.lora_B.weight": np.ones((64, 4, 1)),
            },
            "convolution",
        ),
    ],
)
def test_tensors_that_are_not_plain_lora_are_refused_by_name(extra, found, tmp_path):
    adapter = write_adapter(tmp_path / "a", {QUERY: SHAPE}, extra=extra)
    with pytest.raises(AdapterError, match=found):
        open_adapter(adapter)


def test_an_adapter_of_another_base_is_refused_by_its_shapes(base, tmp_path):
    adapter = write_adapter(tmp_path / "a", {QUERY: (256, 32)})
    with pytest.raises(AdapterError, match=r"another base: .*q_proj.* would change shape \[256, 32\]"):
        plan_of(base, (adapter,))


def test_an_adapter_with_a_module_that_the_base_lacks_is_refused(base, tmp_path):
    adapter = write_adapter(tmp_path / "a", {"model.layers.9.self_attn.q_proj": SHAPE})
    with pytest.raises(AdapterError, match=r"has model\.layers\.9\.self_attn\.q_proj\.weight, which this"):
        plan_of(base, (adapter,))


def test_a_replacement_after_an_earlier_adapters_delta_is_refused(base, tmp_path):
    first = write_adapter(tmp_path / "a", {QUERY: SHAPE})
    second = write_adapter(tmp_path / "b", {}, saved={QUERY: np.ones(SHAPE)})
    with pytest.raises(AdapterError, match=r"replaces .* an earlier adapter changed"):
        plan_of(base, (first, second))


def test_a_folder_that_is_no_adapter_is_refused_in_one_line(tmp_path):
    with pytest.raises(AdapterError, match=r"is not a PEFT adapter: .* has no adapter_config\.json"):
        open_adapter(tmp_path)


def test_lora_on_every_kind_of_module_is_found(tiny, tmp_path):
    modules = lora_modules(TINY["qwen35-double"])
    plan = plan_of(tiny("qwen35-double"), (write_adapter(tmp_path / "a", modules),))
    assert {name for name, source in plan.sources.items() if source.is_merged} == {
        f"{name}.weight" for name in modules
    }


@pytest.mark.parametrize("key", ["r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"])
def test_any_setting_may_be_nonsense_and_is_at_most_one_line(key, tmp_path):
    adapter = write_adapter(tmp_path / "a", {QUERY: SHAPE})
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    for value in (None, "x", -1, 0, 1.5, [], [1], {"(": 1}, {"q_proj": "x"}):
        path.write_text(json.dumps({**config, key: value}))
        assert "\n" not in outcome(adapter)


def outcome(adapter: Path) -> str:
    """The refusal, or nothing where the adapter opens; any other exception fails the test."""
    try:
        open_adapter(adapter)
    except AdapterError as error:
        return str(error)
    return ""
