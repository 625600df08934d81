"""Importance matrices: read, made, used, and refused where they belong to another model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gguf import GGUFWriter

from convert import ConvertOptions, convert
from convert.errors import ImatrixError
from convert.gguf_file import read_gguf
from convert.imatrix import make_imatrix, read_imatrix
from convert.tokenizer import load_tokenizer
from tests.convert.tiny_checkpoints import TINY, weights

pytestmark = pytest.mark.model
TEXTS = ["the name of the call " * 12, "{'a': 1}"]
N_CTX = 32


@pytest.fixture(scope="module")
def bf16(tiny, tmp_path_factory):
    """The file of the qwen3 checkpoint; its first layer's input is easy to compute by hand."""
    out = tmp_path_factory.mktemp("bf16")
    options = ConvertOptions(
        str(tiny("qwen3-tied")), out, types=("f32",), pre="qwen2", n_threads=1, verify="off"
    )
    return convert(options).files[0].path


@pytest.fixture(scope="module")
def made(bf16, tmp_path_factory):
    path = tmp_path_factory.mktemp("imatrix") / "tiny.imatrix.gguf"
    steps = []
    summary = make_imatrix(
        bf16, TEXTS, path, dataset="words", n_ctx=N_CTX, on_progress=lambda *step: steps.append(step)
    )
    return path, summary, steps


def test_the_first_layers_statistics_are_the_squares_of_its_normed_embeddings(tiny, made):
    path, _, _ = made
    tensors = weights(TINY["qwen3-tied"])
    tokenizer = load_tokenizer(tiny("qwen3-tied") / "tokenizer.json")
    ids = [token_id for text in TEXTS for token_id in tokenizer.encode(text).ids]
    rows = tensors["model.embed_tokens.weight"][ids].astype(np.float64)
    normed = rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + 1e-6)
    normed *= tensors["model.layers.0.input_layernorm.weight"]
    wanted = np.square(normed).mean(axis=0)
    assert np.allclose(read_imatrix(path).values["blk.0.attn_q.weight"], wanted, rtol=0.02)


def test_every_weight_of_every_layer_saw_every_token(made):
    path, summary, _ = made
    tensors = read_gguf(path).tensors
    counts = {
        name: tensor.read_rows(0, 1).view(np.float32) for name, tensor in tensors.items() if "counts" in name
    }
    assert summary.n_weights == len(counts) == 3 * 7
    assert {float(count[0, 0]) for count in counts.values()} == {summary.n_tokens}


def test_progress_counts_the_pieces(made):
    _, summary, steps = made
    assert steps == [(i + 1, summary.n_chunks) for i in range(summary.n_chunks)]


def test_a_matrix_changes_the_quantized_weights_and_is_named_in_the_file(tiny, made, tmp_path):
    path, _, _ = made
    options = ConvertOptions(
        str(tiny("qwen3-tied")), tmp_path / "plain", types=("q4_k_m",), pre="qwen2", n_threads=1, verify="off"
    )
    plain = read_gguf(convert(options).files[0].path)
    weighted = read_gguf(convert(replace(options, out=tmp_path / "weighted", imatrix=path)).files[0].path)
    name = "blk.1.ffn_up.weight"
    assert plain.tensors[name].type == weighted.tensors[name].type
    assert (plain.tensors[name].read_rows(0, 96) != weighted.tensors[name].read_rows(0, 96)).any()
    assert weighted.metadata["smoltools_edge.imatrix.sha256"] == read_imatrix(path).sha256
    assert "smoltools_edge.imatrix.sha256" not in plain.metadata


def test_a_matrix_of_another_model_is_refused_before_any_work(tiny, made, tmp_path):
    options = ConvertOptions(str(tiny("qwen35-double")), tmp_path, imatrix=made[0], pre="qwen35")
    with pytest.raises(ImatrixError, match=r"is of another model: blk\.\d\.\w+\.weight has"):
        convert(options)
    assert list(tmp_path.iterdir()) == []


def test_a_column_group_that_never_ran_counts_as_neutral(tmp_path):
    path = _write(tmp_path, {"w.in_sum2": [[2, 4], [0, 0]], "w.counts": [[2], [0]]})
    assert read_imatrix(path).values["w"].tolist() == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"w.in_sum2": [[1.0]]}, "sums but no counts for w"),
        ({"w.in_sum2": [[np.nan]], "w.counts": [[1.0]]}, "NaN or infinity for w"),
        ({"other": [[1.0]]}, "not an importance matrix"),
    ],
)
def test_a_damaged_matrix_is_refused(tensors, found, tmp_path):
    with pytest.raises(ImatrixError, match=found):
        read_imatrix(_write(tmp_path, tensors))


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"old imatrix format")
    with pytest.raises(ImatrixError, match="not an importance matrix in GGUF format"):
        read_imatrix(tmp_path / "x")


def test_an_empty_calibration_is_refused(bf16, tmp_path):
    with pytest.raises(ImatrixError, match="the calibration text is empty"):
        make_imatrix(bf16, [""], tmp_path / "x.gguf", dataset="none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "said"),
    [("file/x.gguf", "Not a directory"), ("none/x.gguf", "No such file"), ("", "is a folder")],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_model_runs(place, said, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImatrixError, match=said):
        make_imatrix(tmp_path / "no-model.gguf", TEXTS, tmp_path / place, dataset="none")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _write(folder, tensors):
    path = folder / "x.gguf"
    writer = GGUFWriter(path, "imatrix")
    writer.add_string("general.type", "imatrix")
    for name, values in tensors.items():
        writer.add_tensor(name, np.array(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
