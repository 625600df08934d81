"""Each check of a written file catches the damage that it is there for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import convert
import convert.running
from convert.child import NativeFailure, run_native
from convert.errors import ConvertError, VerifyError
from convert.excerpt import layers_needed, write_excerpt
from convert.gguf_file import read_gguf
from convert.plan import Field
from convert.tokenizer import read_vocabulary
from convert.verify import fallbacks, verify_float, verify_quantized
from tests.convert.support import plan_of, write_plan
from tests.convert.tiny_adapters import lora_modules, write_adapter
from tests.convert.tiny_checkpoints import N_VOCAB, TINY

pytestmark = pytest.mark.model
NAME = "qwen35-double"


@pytest.fixture(scope="module")
def source(tiny):
    return tiny(NAME)


@pytest.fixture(scope="module")
def vocabulary(source):
    return read_vocabulary(source, N_VOCAB, pre="qwen35")


@pytest.fixture
def written(source, tmp_path):
    return write_plan(tmp_path / "model.gguf", source, plan_of(source), "BF16", "qwen35")


def verify(path, source, vocabulary, *more: Field):
    fields = [*plan_of(source).fields, *vocabulary.fields(), *more]
    return verify_float(read_gguf(path), plan_of(source), vocabulary, fields, "BF16")


def flip_byte(path, tensor: str, place: int = 0) -> None:
    offset = read_gguf(path).tensors[tensor].offset + place
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_an_undamaged_file_passes_every_check(written, source, vocabulary):
    assert len(verify(written, source, vocabulary)) == 7


@pytest.mark.parametrize(
    "tensor",
    [
        "token_embd.weight",
        "blk.0.attn_qkv.weight",
        "blk.0.ssm_out.weight",
        "blk.0.ssm_a",
        "output_norm.weight",
    ],
)
def test_one_flipped_bit_is_found_whatever_the_tensors_transform(tensor, written, source, vocabulary):
    flip_byte(written, tensor)
    with pytest.raises(VerifyError, match=rf"check 'weights' failed: {tensor} differs from model\."):
        verify(written, source, vocabulary)


def test_a_transform_that_was_left_out_is_found_by_the_bits(source, vocabulary, tmp_path):
    plan = plan_of(source)
    spoiled = tuple(
        replace(tensor, row_order=None) if "attn_gate" in tensor.name else tensor for tensor in plan.tensors
    )
    path = write_plan(tmp_path / "x.gguf", source, replace(plan, tensors=spoiled), "BF16", "qwen35")
    with pytest.raises(VerifyError, match=r"blk\.0\.attn_gate\.weight differs from"):
        verify(path, source, vocabulary)


def test_a_missing_tensor_and_one_too_many_are_found(source, vocabulary, tmp_path):
    plan = plan_of(source)
    fewer = write_plan(
        tmp_path / "a.gguf", source, replace(plan, tensors=plan.tensors[:-1]), "BF16", "qwen35"
    )
    with pytest.raises(VerifyError, match=r"1 tensors are missing, first output_norm\.weight"):
        verify(fewer, source, vocabulary)
    more = (*plan.tensors, replace(plan.tensors[-1], name="odd.weight"))
    path = write_plan(tmp_path / "b.gguf", source, replace(plan, tensors=more), "BF16", "qwen35")
    with pytest.raises(VerifyError, match=r"1 tensors too many, first odd\.weight"):
        verify(path, source, vocabulary)


def test_a_tensor_in_a_type_that_makes_llama_cpp_abort_is_found_before_it_runs(source, vocabulary, tmp_path):
    path = write_plan(tmp_path / "x.gguf", source, plan_of(source), "F16", "qwen35")
    with pytest.raises(
        VerifyError, match=r"check 'tensors' failed: token_embd.weight is .*F16.*, not .*BF16"
    ):
        verify(path, source, vocabulary)


def test_a_missing_key_and_a_wrong_value_are_found(written, source, vocabulary):
    with pytest.raises(VerifyError, match=r"check 'metadata' failed: key qwen35.extra is missing"):
        verify(written, source, vocabulary, Field("qwen35.extra", "u32", 1))
    with pytest.raises(VerifyError, match=r"key qwen35.block_count is 4, not 5"):
        verify(written, source, vocabulary, Field("qwen35.block_count", "u32", 5))


def test_a_chat_template_that_got_lost_is_found(written, source, vocabulary):
    with pytest.raises(VerifyError, match=r"key tokenizer.chat_template is missing"):
        verify(written, source, vocabulary, Field("tokenizer.chat_template", "str", "{{ messages }}"))


def test_an_end_of_generation_id_that_the_file_does_not_know_is_found(written, source, vocabulary):
    with pytest.raises(
        VerifyError, match=r"check 'tokens' failed: token ids \[5\] end generation in the checkpoint"
    ):
        verify(written, source, replace(vocabulary, end_ids=(5,)))


def test_a_truncated_file_is_refused_when_it_is_read_back(written):
    written.write_bytes(written.read_bytes()[:-100])
    with pytest.raises(
        ConvertError, match=r"not a readable GGUF file: it ends inside tensor output_norm\.weight"
    ):
        read_gguf(written)


def test_merged_weights_are_checked_against_a_separate_computation(source, vocabulary, tmp_path):
    adapter = write_adapter(tmp_path / "a", lora_modules(TINY[NAME]))
    plan = plan_of(source, (adapter,))
    path = write_plan(tmp_path / "x.gguf", source, plan, "BF16", "qwen35")
    fields = [*plan.fields, *vocabulary.fields()]
    checks = verify_float(read_gguf(path), plan, vocabulary, fields, "BF16")
    assert "31 merged tensors within rounding" in next(
        check.detail for check in checks if check.name == "weights"
    )
    unmerged = write_plan(tmp_path / "y.gguf", source, plan_of(source), "BF16", "qwen35")
    with pytest.raises(VerifyError, match=r"is off by .* from the merge of model.layers"):
        verify_float(read_gguf(unmerged), plan, vocabulary, fields, "BF16")


def test_quantized_tensors_that_changed_places_are_found(source, vocabulary, written, tmp_path):
    target = tmp_path / "q.gguf"
    request = {"ftype": 7, "n_threads": 1, "max_buf_bytes": 2**20, "fields": {}, "imatrix": None}
    run_native("quantize", {"source": str(written), "target": str(target), **request})
    good, plain = read_gguf(target), read_gguf(written)
    fields = list(vocabulary.fields())
    assert len(verify_quantized(good, plain, vocabulary, fields)) == 7
    one, other = good.tensors["blk.0.ffn_up.weight"], good.tensors["blk.0.ffn_gate.weight"]
    content = bytearray(target.read_bytes())
    a, b = slice(one.offset, one.offset + one.n_bytes), slice(other.offset, other.offset + other.n_bytes)
    content[a], content[b] = content[b], content[a]
    target.write_bytes(content)
    with pytest.raises(VerifyError, match=r"blk\.0\.ffn_\w+\.weight has a relative error of 1\.\d+"):
        verify_quantized(read_gguf(target), plain, vocabulary, fields)


def test_only_rows_that_do_not_divide_into_blocks_count_as_fallbacks(written):
    file = read_gguf(written)
    assert fallbacks(file, file, "q8_0") == ()
    assert len(fallbacks(file, file, "q4_k_m")) == 32


def test_a_native_crash_is_one_error_and_not_the_end_of_this_process(source, tmp_path):
    """llama.cpp takes attn_qkv for optional, loads such a file, and crashes when it decodes."""
    plan = plan_of(source)
    fewer = tuple(tensor for tensor in plan.tensors if "attn_qkv" not in tensor.name)
    path = write_plan(tmp_path / "x.gguf", source, replace(plan, tensors=fewer), "BF16", "qwen35")
    with pytest.raises(NativeFailure, match=r"llama.cpp died of SIG"):
        run_native("probe", {"model": str(path), "texts": [], "decode": [1, 2]})


def test_a_file_that_llama_cpp_refuses_gives_its_reason(source, tmp_path):
    plan = plan_of(source)
    fields = tuple(field for field in plan.fields if field.key != "qwen35.ssm.state_size")
    path = write_plan(tmp_path / "x.gguf", source, replace(plan, fields=fields), "BF16", "qwen35")
    with pytest.raises(NativeFailure, match=r"key not found in model: qwen35.ssm.state_size"):
        run_native("probe", {"model": str(path), "texts": [], "decode": []})


def test_a_large_file_decodes_in_an_excerpt_with_every_kind_of_layer(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(convert.running, "_WHOLE_FILE_BYTES", 0)
    folder = tiny("qwen35-irregular")
    out = tmp_path / "out"
    options = convert.ConvertOptions(str(folder), out, types=("bf16", "q4_0"), pre="qwen35", n_threads=1)
    result = convert.convert(options)
    assert [file.checks[-1].detail.rpartition("(")[2] for file in result.files] == ["first 2 layers)"] * 2
    assert not list(out.glob("*excerpt*"))


def test_an_excerpt_is_the_first_layers_bytes(written, source, vocabulary, tmp_path):
    file = read_gguf(written)
    path = tmp_path / "excerpt.gguf"
    assert layers_needed(file) == 4
    fields = [*plan_of(source).fields, *vocabulary.fields()]
    assert write_excerpt(path, file, fields) == 4
    for name, tensor in read_gguf(path).tensors.items():
        whole = file.tensors[name]
        assert np.array_equal(tensor.read_rows(0, tensor.n_rows), whole.read_rows(0, tensor.n_rows))
