"""The catalogue's rows against files that were really made, and against mistakes in a row."""

from __future__ import annotations

from importlib import resources

import pytest
from pydantic import ValidationError

from edge.models.catalogue import catalogue, parse_catalogue

TEXT = resources.files("edge.models").joinpath("catalogue.toml").read_text(encoding="utf-8")


def n_weights(entry) -> int:
    """Weights of all matrices, from the shape alone."""
    s = entry.shape
    attention = 2 * s.n_embd * s.n_head * s.head_dim + 2 * s.n_embd * s.n_head_kv * s.head_dim
    mixers = s.n_layer * attention
    if s.recurrent:
        r, n_full = s.recurrent, s.n_layer // s.recurrent.full_attention_interval
        gated = attention + s.n_embd * s.n_head * s.head_dim
        linear = s.n_embd * (2 * r.group_count * r.state_size + 3 * r.inner_size + 2 * r.time_step_rank)
        mixers = n_full * gated + (s.n_layer - n_full) * linear
    ffn = s.n_layer * 3 * s.n_embd * s.n_ff
    return mixers + ffn + (1 if s.tied_embeddings else 2) * s.n_vocab * s.n_embd


@pytest.mark.parametrize("name", list(catalogue()))
@pytest.mark.parametrize(("quantization", "bits"), [("Q4_K_M", 4.5), ("Q8_0", 8.5), ("BF16", 16)])
def test_the_sizes_of_files_fit_the_shape(name, quantization, bits):
    entry = catalogue()[name]
    least = n_weights(entry) * bits / 8
    # Q4_K_M has some matrices in Q6_K; a vocabulary and its merges take up to 17 MB.
    # Rows that 256 does not divide are stored in larger types.
    is_odd = bool(entry.shape.n_embd % 256)
    most = least * ((1.4 if is_odd else 1.15) if quantization == "Q4_K_M" else 1.03) + 17e6
    assert least <= entry.shape.file_bytes[quantization] <= most


def test_the_4b_has_as_many_weights_as_its_checkpoint():
    assert n_weights(catalogue()["smol-tools-4b"]) == pytest.approx(4.841e9, rel=1e-3)
    assert n_weights(catalogue()["toolomni-qwen3-4b"]) == pytest.approx(4.022e9, rel=1e-3)


@pytest.mark.model
def test_the_demo_model_s_shape_is_its_file_s(demo_model_path):
    from edge.engine.gguf_header import read_gguf_header

    header, shape = read_gguf_header(demo_model_path), catalogue()["demo"].shape
    assert header.architecture == shape.architecture
    for quantization, n_bytes in shape.file_bytes.items():
        made = demo_model_path.with_name(f"demo-{quantization.lower()}.gguf")
        assert made.stat().st_size == pytest.approx(n_bytes, rel=1e-3)
    keys = {
        "block_count": shape.n_layer, "embedding_length": shape.n_embd, "feed_forward_length": shape.n_ff,
        "attention.head_count": shape.n_head, "attention.head_count_kv": shape.n_head_kv,
        "rope.dimension_count": shape.head_dim, "vocab_size": shape.n_vocab, "context_length": shape.n_ctx_train,
    }  # fmt: skip
    assert {key: header.number(key) for key in keys} == keys
    assert ("output.weight" not in header.tensors) is shape.tied_embeddings


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('shape = "qwen3-4b"', 'shape = "qwen4"', "there is no shape 'qwen4'"),
        ("n_layer = 36", "n_layer = 0", "greater than 0"),
        ("n_layer = 36\n", "", "Field required"),
        ("n_head_kv = 8", "n_head_kv = 7", "not a multiple"),
        ("inner_size = 4096", "inner_size = 4000", "inner_size is not"),
        ('architecture = "qwen3"', 'architecture = "qwen35"', r"needs \[recurrent\]"),
        ('architecture = "qwen3"', 'architecture = "gpt2"', "architecture"),
        ('name = "smol-tools-4b-16k"', 'name = "smol-tools-4b"', "the same name"),
        ("n_ctx_tuned = 8192", "n_ctx_tuned = 8193", "above n_ctx_train"),
        ('quantizations = ["Q8_0", ', 'quantizations = ["Q5_0", ', "no file_bytes for Q5_0"),
        ('builder = "edge.cli.build_demo:build_demo"', 'builder = "edge.cli.build_demo"', "pattern"),
        ('kind = "built"', 'kind = "wheel"', "built"),
        ('sha256 = "b179', 'sha256 = "B179', "pattern"),
        ('license = "Apache-2.0"', 'licence = "Apache-2.0"', "Extra inputs"),
        ("enfuse/smol-tools-4b-GGUF", "https://x", "pattern"),
    ],
)
def test_a_mistake_in_a_row_is_found(old, new, found):
    assert old in TEXT
    with pytest.raises(ValidationError, match=found):
        parse_catalogue(TEXT.replace(old, new, 1))
