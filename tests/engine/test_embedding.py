"""Vectors of a tiny BERT: compared with the same network in numpy, and files that are none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.engine.embedding import Embedder, EmbedderOptions
from edge.errors import ModelError
from tests import tiny_bert
from tests.tiny_bert import write_tiny_bert
from tests.tiny_gguf import write_gguf

pytestmark = pytest.mark.model
ONE_THREAD = EmbedderOptions(n_threads=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny_bert(tmp_path_factory.mktemp("bert") / "bert.gguf")


@pytest.fixture(scope="module")
def embedder(path):
    with Embedder(path, ONE_THREAD) as embedder:
        yield embedder


def numpy_bert(words: list[str]) -> np.ndarray:
    """The embedding of [CLS] words [SEP], each word one token, by the textbook."""
    w = tiny_bert.tensors(0)
    tokens = tiny_bert.metadata()["tokenizer.ggml.tokens"]
    ids = [tokens.index("[CLS]"), *(tokens.index(f"\u2581{word}") for word in words), tokens.index("[SEP]")]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def heads(x):
        return x.reshape(len(ids), 2, -1).transpose(1, 0, 2)

    x = w["token_embd.weight"][ids] + w["position_embd.weight"][: len(ids)] + w["token_types.weight"][0]
    x = norm(x, "token_embd_norm")
    for i in range(tiny_bert.N_LAYER):
        q, k, v = (heads(linear(x, f"blk.{i}.attn_{name}")) for name in "qkv")
        weights = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        attended = (weights / weights.sum(-1, keepdims=True)) @ v
        x = norm(
            x + linear(attended.transpose(1, 0, 2).reshape(len(ids), -1), f"blk.{i}.attn_output"),
            f"blk.{i}.attn_output_norm",
        )
        up = linear(x, f"blk.{i}.ffn_up")
        up = 0.5 * up * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
        x = norm(x + linear(up, f"blk.{i}.ffn_down"), f"blk.{i}.layer_output_norm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_vectors_are_those_of_the_network(embedder):
    (vector,) = embedder.embed(["get the weather"])
    assert vector == pytest.approx(numpy_bert(["get", "the", "weather"]), abs=2e-3)


def test_a_text_s_vector_does_not_depend_on_its_neighbours(embedder):
    texts = ["send a letter", "", "play " * 500, *(f"song {chr(97 + n)}" for n in range(40))]
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-3)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)


def test_no_texts_give_no_rows(embedder):
    assert embedder.embed([]).shape == (0, tiny_bert.N_EMBD)


def test_a_prefix_marks_queries_and_changes_the_identity(path, embedder):
    with Embedder(path, EmbedderOptions(n_threads=1, query_prefix="get ", document_prefix="play ")) as marked:
        assert marked.embed(["song"], query=True) == pytest.approx(embedder.embed(["get song"]), abs=1e-6)
        assert marked.embed(["song"]) == pytest.approx(embedder.embed(["play song"]), abs=1e-6)
        assert marked.identity != embedder.identity


def test_a_causal_model_with_pooling_embeds_too(tmp_path):
    path = write_gguf(tmp_path / "qwen.gguf", change={"llama.pooling_type": 3})
    with Embedder(path, ONE_THREAD) as embedder:
        together = embedder.embed(["hello there", "weather"])
        assert together[1] == pytest.approx(embedder.embed(["weather"])[0], abs=1e-3)
        assert together[0] @ together[1] < 0.999


def test_a_chat_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is not an embedding model: it has no pooling_type"):
        Embedder(write_gguf(tmp_path / "chat.gguf"))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"change": {"bert.pooling_type": 4}}, "pooling_type 4, allowed are 1"),
        ({"drop": ("blk.1.attn_k.weight",)}, "cannot be loaded"),
        ({"drop": ("tokenizer.ggml.tokens",)}, "cannot be loaded"),
        ({"change": {"bert.block_count": 9}}, "cannot be loaded"),
    ],
)
def test_a_file_that_cannot_embed_is_one_line(tmp_path, options, found):
    path = write_tiny_bert(tmp_path / "bad.gguf", **options)
    with pytest.raises(ModelError) as caught:
        Embedder(path, ONE_THREAD)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused_without_llama_cpp(tmp_path):
    path = write_tiny_bert(tmp_path / "short.gguf")
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(ModelError, match="truncated"):
        Embedder(path)


def test_a_closed_embedder_can_be_closed_again(path):
    embedder = Embedder(path, ONE_THREAD)
    embedder.close()
    embedder.close()
