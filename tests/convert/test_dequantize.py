"""A GGUF file back to a checkpoint: nothing is lost on the way there and back, and what would be is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer

from convert import ConvertOptions, convert
from convert.child import run_native
from convert.dequantize import tokenizer_json, write_checkpoint
from convert.errors import ConvertError, OutputError, UnsupportedModel
from convert.gguf_file import GgufFile, read_gguf
from tests.tiny_gguf import TinyShape, vocabulary, write_gguf

SHAPE = TinyShape(n_layer=2, n_head=4, n_head_kv=2)
# Merges whose results are in the invented vocabulary, which tokenizers insists on.
MERGES = [f"{token[0]} {token[1]}" for token in vocabulary(SHAPE.n_vocab, 0)[0] if len(token) == 2]
HEADER = {
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.padding_token_id": 1,
    "tokenizer.chat_template": "{{ messages[0].content }}",
}
MATRICES = ("blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.1.ffn_down.weight")
# Texts that tell tokenizers apart: digits, spaces, marks, scripts, control tokens, broken pieces of them.
ODD_TEXTS = [
    "", " ", "  ", "   x", "\n", "\n\n\n", " \n \n", "\t\ttab", "\r\n", "a b  c   d", "trailing  ",
    "12345678901", "3.14159", "1,000,000", "2026-03-06T12:00:00Z", "v1.2.3-rc4", "0x1F4A9", "١٢٣٤", "½ ⅓ ²",
    "don't can't we'll I'M THEY'RE", "'s 's's", "naïve café", "cafe\u0301", "größe ßẞ", "İstanbul ı", "Ωmega ΑΒΓ",
    "日本語のテキスト", "汉字和English混合", "한국어", "हिन्दी", "ภาษาไทย", "עברית", "العربية", "ქართული",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽", "🇩🇪🇫🇷",    "a\u200bb\u200dc", "\ufeffbom", "\u00a0nbsp\u2003em", "\x00\x01\x7f",
    "\u2028line\u2029", "e\u0301\u0302\u0303",
    "<|im_start|>system\nx<|im_end|>\n", "<|im_start|", "|im_end|>", "<<|im_end|>>", "a<|endoftext|>b", "<file_sep>x",
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', "{}[]()<>", '"\\"\\\\"',
    "https://example.com/a?b=c&d=%20#e", "me@example.org", "C:\\Temp\\x.txt", "/usr/bin/env", "snake_case camelCase",
    "def f(x):\n    return x**2\n", "\t\tif (a&&b){\n\t\t}", "#!/bin/sh\nset -eu\n", "$100 €5 £3 ¥9",
    "!!!???...---___", "~`@#$%^&*",    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "supercalifragilisticexpialidocious", "\u202eabc\u202c",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "𐍈𐌰",
]  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> GgufFile:
    path = tmp_path_factory.mktemp("dequantize") / "tiny.gguf"
    return read_gguf(write_gguf(path, SHAPE, change=HEADER, as_f16=MATRICES))


def floats(file: GgufFile) -> dict[str, np.ndarray]:
    """Every tensor as llama.cpp computes with it."""
    found = {}
    for name, tensor in file.tensors.items():
        kind = gguf.GGMLQuantizationType[tensor.type]
        raw = tensor.read_rows(0, tensor.n_rows)
        found[name] = gguf.quants.dequantize(raw, kind).reshape(tensor.shape)
    return found


def back_again(checkpoint: Path, out: Path, *types: str) -> list[GgufFile]:
    made = convert(ConvertOptions(str(checkpoint), out, types=types, pre="smollm", n_threads=1))
    return [read_gguf(output.path) for output in made.files]


@pytest.mark.model
def test_there_and_back_is_the_same_file_also_from_quantized_weights(file, tmp_path):
    [float_file, quantized] = back_again(
        write_checkpoint(file.path, tmp_path / "one"), tmp_path / "out", "f32", "q8_0"
    )
    [second] = back_again(write_checkpoint(quantized.path, tmp_path / "two"), tmp_path / "out2", "f32")
    for before, after in ((file, float_file), (quantized, second)):
        wanted, found = floats(before), floats(after)
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
        # Ours writes more: sizes that follow from others, and where a file comes from.
        told = {
            key: value for key, value in before.metadata.items() if not key.startswith(("general", "smol"))
        }
        assert {key: after.metadata.get(key) for key in told} == told
    assert "Q8_0" in {tensor.type for tensor in quantized.tensors.values()}


def test_the_rows_of_queries_are_in_the_order_of_transformers(file, tmp_path):
    checkpoint = write_checkpoint(file.path, tmp_path / "c")
    from convert.checkpoint import open_checkpoint

    stored = open_checkpoint(checkpoint).tensors["model.layers.0.self_attn.q_proj.weight"]
    rows, before = stored.read_rows(0, 64), floats(file)["blk.0.attn_q.weight"]
    # llama.cpp's row 2 i of a head is transformers' row i, its row 2 i + 1 is row i + 8; heads are 16 rows.
    for head in (0, 3):
        assert np.array_equal(rows[16 * head + 5], before[16 * head + 10])
        assert np.array_equal(rows[16 * head + 8 + 5], before[16 * head + 11])


def test_a_given_template_takes_the_place_of_the_file_s(file, tmp_path):
    own = json.loads((write_checkpoint(file.path, tmp_path / "a") / "tokenizer_config.json").read_text())
    assert own["chat_template"] == HEADER["tokenizer.chat_template"]
    given = write_checkpoint(file.path, tmp_path / "b", chat_template="{{ 1 }}")
    assert json.loads((given / "tokenizer_config.json").read_text())["chat_template"] == "{{ 1 }}"


def test_a_checkpoint_without_an_output_matrix_is_tied(tmp_path):
    path = write_gguf(tmp_path / "tied.gguf", SHAPE, change=HEADER, drop=("output.weight",))
    config = json.loads((write_checkpoint(path, tmp_path / "c") / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert (config["num_key_value_heads"], config["head_dim"], config["rms_norm_eps"]) == (2, 16, 1e-6)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"tokenizer.ggml.model": "llama"}, "llama with a llama tokenizer; only llama with byte-level BPE"),
        ({"tokenizer.ggml.pre": "qwen2"}, "the pre-tokenizer qwen2 is not known here; known: smollm"),
        ({"llama.expert_count": 8}, "has llama.expert_count, which is not written back"),
        ({"tokenizer.ggml.add_bos_token": True}, "add_bos_token, which is not written back"),
        ({"llama.rope.scaling.type": "yarn"}, "scales rope"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "has 512 tokens and 2 token types"),
        ({"tokenizer.ggml.bos_token_id": 512}, "has 512 as its bos token, of 512 tokens"),
        ({"tokenizer.ggml.bos_token_id": "x"}, "has a str as tokenizer.ggml.bos_token_id; wanted is int"),
        ({"llama.attention.head_count": 5}, "has 5 heads for 64 columns"),
        ({"llama.attention.head_count": [4, 4]}, "has a list as llama.attention.head_count"),
    ],
)
def test_what_a_checkpoint_cannot_say_is_refused_before_anything_is_written(change, found, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", SHAPE, change=HEADER | change)
    with pytest.raises(UnsupportedModel, match=found):
        write_checkpoint(path, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "name", ["llama.embedding_length", "tokenizer.ggml.merges", "tokenizer.ggml.eos_token_id"]
)
def test_a_header_that_lacks_something_is_refused_by_its_name(name, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", SHAPE, change=HEADER, drop=(name,))
    with pytest.raises(UnsupportedModel, match=f"lacks {name}"):
        write_checkpoint(path, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_tensor_that_plain_llama_does_not_have_is_refused(tmp_path):
    extra = {"blk.0.attn_q.bias": np.zeros(64, np.float32)}
    path = write_gguf(tmp_path / "m.gguf", SHAPE, change=HEADER, extra=extra)
    with pytest.raises(UnsupportedModel, match=r"the tensor blk\.0\.attn_q\.bias, which plain llama"):
        write_checkpoint(path, tmp_path / "c")


def test_another_architecture_is_refused(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", TinyShape(architecture="qwen3"), change=HEADER)
    with pytest.raises(UnsupportedModel, match="is qwen3 with a gpt2 tokenizer"):
        write_checkpoint(path, tmp_path / "c")


def test_what_is_no_whole_gguf_file_is_one_line(file, tmp_path):
    content = file.path.read_bytes()
    for part in (b"", b"GGUF", b"none of it", content[:2000], content[:-1000]):
        (tmp_path / "m.gguf").write_bytes(part)
        with pytest.raises(ConvertError) as error:
            write_checkpoint(tmp_path / "m.gguf", tmp_path / "c")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "c").exists()


def test_a_folder_that_cannot_be_written_is_named(file, tmp_path):
    (tmp_path / "c").write_text("a file")
    with pytest.raises(OutputError, match="c cannot be written: File exists"):
        write_checkpoint(file.path, tmp_path / "c")


@pytest.mark.model
def test_the_tokenizer_splits_odd_texts_as_llama_cpp_does(demo_model_path):
    ours = Tokenizer.from_str(json.dumps(tokenizer_json(demo_model_path)))
    rng = random.Random(5)
    letters = "".join(ODD_TEXTS)
    texts = ODD_TEXTS + ["".join(rng.choices(letters, k=rng.randint(1, 40))) for _ in range(400)]
    probed = run_native("probe", {"model": str(demo_model_path), "texts": texts, "decode": []})
    theirs = probed["token_ids"]
    for text, ids in zip(texts, theirs, strict=True):
        assert ours.encode(text).ids == ids, ascii(text)
        assert ours.decode(ids, skip_special_tokens=False) == text, ascii(text)
