"""Sizes before there is a file. The large ones are of files that llama.cpp's quantizer wrote or the hub lists."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from edge.cli.model_facts import FILE_TYPES, GGML_TYPES, header_shape, header_weights
from edge.engine.gguf_header import read_gguf_header
from profiles.errors import UnknownShape
from profiles.recipes import estimate_weights, layer_gets_more_bits
from profiles.shape import TYPE_SIZES
from tests.tiny_gguf import TinyShape, write_gguf


@pytest.mark.parametrize(
    ("quantization", "tensor_bytes", "file_bytes"),
    [
        ("BF16", 8_413_425_664, 8_424_384_032),
        ("Q8_0", 4_471_435_264, 4_482_393_632),
        ("Q4_K_M", 2_697_836_544, 2_708_794_912),
    ],
)
def test_qwen35_4b_has_the_sizes_of_the_files_that_were_made(
    qwen35_4b, quantization, tensor_bytes, file_bytes
):
    weights = estimate_weights(qwen35_4b, quantization)
    assert weights.tensor_bytes == tensor_bytes
    assert weights.file_bytes == pytest.approx(file_bytes, rel=1e-4)


@pytest.mark.parametrize(("quantization", "gib"), [("BF16", 9.03), ("Q8_0", 4.80), ("Q4_K_M", 2.86)])
def test_an_output_of_its_own_makes_the_sizes_that_the_model_cards_print(qwen35_4b, quantization, gib):
    weights = estimate_weights(replace(qwen35_4b, tied=False), quantization)
    assert weights.file_bytes / 2**30 == pytest.approx(gib, abs=0.006)


@pytest.mark.parametrize(("quantization", "file_bytes"), [("Q4_K_M", 2_497_280_256), ("Q8_0", 4_280_404_704)])
def test_qwen3_4b_has_the_published_sizes(qwen3_4b, quantization, file_bytes):
    assert estimate_weights(qwen3_4b, quantization).file_bytes == pytest.approx(file_bytes, rel=5e-4)


def test_a_recipe_that_is_not_known_is_refused(qwen3_4b):
    with pytest.raises(
        UnknownShape, match="size of a Q3_K_S file is not known; known are Q8_0, Q4_K_M, BF16"
    ):
        estimate_weights(qwen3_4b, "Q3_K_S")


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "qwen35"])
def test_a_file_has_the_tensors_that_were_expected(tmp_path, architecture):
    shape = TinyShape(architecture=architecture, n_layer=4, interval=4)
    path = write_gguf(tmp_path / "m.gguf", shape, as_f16=())
    header = read_gguf_header(path)
    measured = header_weights(header)
    expected = estimate_weights(header_shape(header, "tiny"), "BF16")
    # The file's matrices are F32, twice the size of BF16; vectors are F32 in both.
    in_f32 = sum(group.n_bytes * (2 if group.ggml_type == "BF16" else 1) for group in expected.groups)
    assert measured.tensor_bytes == in_f32
    assert measured.file_bytes == path.stat().st_size


def test_the_table_of_types_is_gguf_s():
    theirs = {kind.name: sizes for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {name: theirs[name] for name in TYPE_SIZES} == TYPE_SIZES
    assert {number: GGMLQuantizationType(number).name for number in GGML_TYPES} == GGML_TYPES


def test_the_names_of_file_types_are_gguf_s():
    def name(number):
        return LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")

    assert {number: name(number) for number in FILE_TYPES} == FILE_TYPES


def test_a_q4_k_m_file_keeps_more_bits_where_llama_cpp_s_quantizer_does():
    more = [layer for layer in range(32) if layer_gets_more_bits(layer, 32)]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
