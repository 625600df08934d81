"""What GGUF stores of a tokenizer: tokens, their types, special ids, template, and which pre-tokenizer it is."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from convert.errors import TokenizerError
from convert.pretokenizers import PROBE_TEXT, probe_hash
from convert.tokenizer import read_chat_template, read_vocabulary
from tests.convert.tiny_checkpoints import ADDED, N_VOCAB, QWEN2_SPLIT, SPECIAL, TEMPLATE, write_tokenizer


@pytest.fixture
def folder(tmp_path):
    write_tokenizer(tmp_path, QWEN2_SPLIT)
    return tmp_path


def edit(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_special_tokens_are_control_others_added_are_user_defined_and_missing_ids_are_unused(folder):
    vocabulary = read_vocabulary(folder, N_VOCAB, pre="qwen2")
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert {types[token] for token in SPECIAL} == {3}
    assert {types[token] for token in ADDED} == {4}
    assert types["a"] == 1
    assert vocabulary.tokens[-1] == f"[PAD{N_VOCAB - 1}]"
    assert vocabulary.types[-1] == 5
    assert len(vocabulary.tokens) == len(vocabulary.types) == N_VOCAB


def test_a_bar_token_that_is_not_marked_special_is_control_all_the_same(folder):
    parsed = json.loads((folder / "tokenizer.json").read_text())
    for entry in parsed["added_tokens"]:
        entry["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(parsed))
    vocabulary = read_vocabulary(folder, N_VOCAB, pre="qwen2")
    assert vocabulary.types[vocabulary.tokens.index("<|im_end|>")] == 3


def test_special_ids_come_from_the_tokenizer_and_never_from_a_class_default(folder):
    (folder / "config.json").write_text('{"bos_token_id": 1, "eos_token_id": 2}')
    vocabulary = read_vocabulary(folder, N_VOCAB, pre="qwen2")
    ids = {token: id_ for id_, token in enumerate(vocabulary.tokens)}
    assert vocabulary.special == {"eos": ids["<|im_end|>"], "padding": ids["<|endoftext|>"]}
    assert set(vocabulary.end_ids) == {ids["<|im_end|>"], ids["<|endoftext|>"]}


def test_a_token_that_the_post_processor_adds_in_front_is_bos(folder):
    token = "<|im_start|>"
    id_ = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(token)
    edit(folder, "tokenizer_config.json", bos_token={"content": token})
    post = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]}},
    }
    edit(folder, "tokenizer.json", post_processor=post)
    vocabulary = read_vocabulary(folder, N_VOCAB, pre="llama-bpe")
    assert vocabulary.special["bos"] == id_
    assert (vocabulary.adds_bos, vocabulary.adds_eos) == (True, False)


def test_nothing_is_added_where_the_tokenizer_adds_nothing(folder):
    vocabulary = read_vocabulary(folder, N_VOCAB, pre="qwen2")
    fields = {field.key: field.value for field in vocabulary.fields()}
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert "tokenizer.ggml.bos_token_id" not in fields


def test_the_pre_tokenizer_is_told_by_the_hash_of_the_probe_text(folder):
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(PROBE_TEXT).ids
    vocabulary = read_vocabulary(folder, N_VOCAB, known_hashes={probe_hash(ids): "qwen2"})
    assert vocabulary.pre == "qwen2"
    assert vocabulary.pre_reason.startswith("probe hash")


def test_a_hash_is_of_the_ids_as_python_prints_a_list():
    assert (
        probe_hash([1, 2]) == "3a316d6d3226f84c1e46e4447fa8d5fd800bff4a1bc6498152523cd4a602b69b"
    )  # sha256 of "[1, 2]"


def test_merges_are_the_same_in_the_old_form_and_the_new_one(folder):
    new = read_vocabulary(folder, N_VOCAB, pre="qwen2").merges
    parsed = json.loads((folder / "tokenizer.json").read_text())
    parsed["model"]["merges"] = [" ".join(pair) for pair in parsed["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(parsed))
    assert read_vocabulary(folder, N_VOCAB, pre="qwen2").merges == new
    assert new[0] == "Ġ t"


def test_the_template_comes_from_the_override_then_the_jinja_file_then_the_configuration(folder, tmp_path):
    assert read_chat_template(folder) == TEMPLATE
    (folder / "chat_template.jinja").write_text("of the file")
    assert read_chat_template(folder) == "of the file"
    override = tmp_path / "mine.jinja"
    override.write_text("mine")
    assert read_chat_template(folder, override) == "mine"


def test_of_several_templates_the_one_for_tools_is_taken(folder):
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    edit(folder, "tokenizer_config.json", chat_template=named)
    assert read_chat_template(folder) == "tools"


def test_without_an_eos_token_the_generation_configuration_says_how_a_turn_ends(folder):
    edit(folder, "tokenizer_config.json", eos_token=None)
    vocabulary = read_vocabulary(folder, N_VOCAB, pre="qwen2")
    assert vocabulary.tokens[vocabulary.special["eos"]] == "<|im_end|>"


def test_a_tokenizer_that_names_no_end_of_generation_is_refused(folder):
    edit(folder, "tokenizer_config.json", eos_token=None)
    (folder / "generation_config.json").unlink()
    with pytest.raises(TokenizerError, match="names no token that ends generation"):
        read_vocabulary(folder, N_VOCAB, pre="qwen2")
