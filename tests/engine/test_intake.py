"""What a model file holds, what is wrong and what is odd about it; no damage raises anything but ModelError."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.chat.template import hermes_template
from edge.engine import intake as intake_module
from edge.engine.context import Context, ContextOptions
from edge.engine.gguf_header import SkippedArray, find_tokens, read_gguf_header, token_type
from edge.engine.intake import examine, examine_chat
from edge.engine.model import Model
from edge.errors import ModelError
from tests.tiny_gguf import TinyShape, write_gguf

HERMES = hermes_template().source
XML = "{% for t in tools %}{{ t }}{% endfor %}<tool_call>\n<function=x>\n<parameter=y>\n<|im_end|>"
PLAIN = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
ARCHITECTURES = ("llama", "qwen3", "qwen35")


@pytest.fixture(autouse=True)
def own_memory(monkeypatch, tmp_path):
    monkeypatch.setenv("SMOLTOOLS_EDGE_CACHE", str(tmp_path / "cache"))


def written(tmp_path, architecture="llama", **options) -> Path:
    return write_gguf(tmp_path / "x.gguf", TinyShape(architecture=architecture), **options)


def refusal(path) -> str:
    with pytest.raises(ModelError) as error:
        examine_chat(path)
    message = str(error.value)
    assert message.count("\n") == 0
    assert message.startswith(str(path))
    return message


class TestFacts:
    def test_a_sound_file_has_no_warnings(self, tmp_path):
        path = written(tmp_path, change={"tokenizer.chat_template": HERMES})
        intake = examine(path)
        assert intake.warnings == ()
        assert intake.template_warning is None
        assert intake.facts == {
            "path": str(path), "architecture": "llama", "name": "tiny llama", "quantization": "F32",
            "size_bytes": path.stat().st_size, "n_ctx_train": 1024,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("template", "tool_format", "found"),
        [
            (HERMES, "hermes", None),
            (XML, "xml", "teaches calls in XML"),
            (PLAIN, "none", "no place for tools"),
            (None, "none", "no chat template"),
            (" \n", "none", "no chat template"),
        ],
    )
    def test_the_form_of_calls_is_read_off_the_template(self, tmp_path, template, tool_format, found):
        change = {} if template is None else {"tokenizer.chat_template": template}
        intake = examine(written(tmp_path, change=change))
        assert intake.tool_format == tool_format
        assert (intake.template_digest is None) is (template is None or not template.strip())
        if found is None:
            assert intake.template_warning is None
        else:
            assert found in intake.template_warning
            assert "the built-in Hermes template is used" in intake.template_warning

    def test_templates_are_told_apart_by_their_digest(self, tmp_path):
        digests = {
            examine(written(tmp_path, change={"tokenizer.chat_template": t})).template_digest
            for t in (HERMES, XML, HERMES)
        }
        assert len(digests) == 2

    def test_what_ends_a_generation_is_found_by_id_and_by_text(self, tmp_path):
        path = written(tmp_path)
        tokens = gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
        expected = {i: t for i, t in enumerate(tokens) if t in ("<|im_end|>", "<|endoftext|>")}
        assert len(expected) >= 1
        assert examine(path).end_tokens == expected

    @pytest.mark.parametrize(("file_type", "name"), [(7, "Q8_0"), (15, "Q4_K_M"), (0, "F32"), (32, "BF16")])
    def test_the_quantization_is_the_file_s_word(self, tmp_path, file_type, name):
        intake = examine(written(tmp_path, change={"general.file_type": file_type}))
        assert intake.quantization == name
        odd = [w for w in intake.warnings if f"it says that it is {name}" in w]
        assert len(odd) == (0 if name == "F32" else 1)

    def test_a_file_type_that_nobody_knows_is_read_off_the_weights(self, tmp_path):
        assert examine(written(tmp_path, change={"general.file_type": 999})).quantization == "F32"

    def test_the_reader_agrees_with_the_gguf_package(self, tmp_path):
        path = written(tmp_path, "qwen35")
        header, reference = read_gguf_header(path), gguf.GGUFReader(path)
        assert list(header.tensors) == [t.name for t in reference.tensors]
        for tensor in reference.tensors:
            mine = header.tensors[tensor.name]
            assert mine.shape == tuple(tensor.shape)
            assert header.data_offset + mine.offset == tensor.data_offset
        tokens = reference.fields["tokenizer.ggml.tokens"].contents()
        types = reference.fields["tokenizer.ggml.token_type"].contents()
        wanted = {0, 7, len(tokens) - 1}
        assert find_tokens(header, (), wanted) == {i: tokens[i] for i in wanted}
        assert [token_type(header, i) for i in sorted(wanted)] == [types[i] for i in sorted(wanted)]

    def test_types_of_a_large_vocabulary_are_read_from_the_file(self, tmp_path):
        path = write_gguf(tmp_path / "x.gguf", TinyShape(n_vocab=5000))
        header = read_gguf_header(path)
        assert isinstance(header.metadata["tokenizer.ggml.token_type"], SkippedArray)
        types = gguf.GGUFReader(path).fields["tokenizer.ggml.token_type"].contents()
        assert [token_type(header, i) for i in range(0, 5000, 77)] == types[::77]
        assert token_type(header, 5000) is None
        assert token_type(header, -1) is None


class TestWrong:
    @pytest.mark.parametrize(
        ("architecture", "options", "found"),
        [
            ("llama", {"change": {"general.type": "adapter"}}, "it is a LoRA adapter, not a model"),
            ("llama", {"change": {"split.count": 3}}, "one of 3 parts of a split model"),
            ("llama", {"change": {"llama.pooling_type": 1}}, "is an embedding model"),
            ("llama", {"change": {"tokenizer.ggml.eos_token_id": 512}}, "eos_token_id is 512; a number from 0 to 511"),
            ("llama", {"change": {"tokenizer.ggml.eot_token_id": 4_000_000_000}}, "eot_token_id is 4000000000"),
            ("llama", {"change": {"tokenizer.ggml.eos_token_id": "2"}}, "eos_token_id is 2; a number"),
            ("llama", {"drop": ("tokenizer.ggml.eos_token_id",)}, "eos_token_id is missing"),
            ("llama", {"change": {"tokenizer.ggml.token_type": [1, 3]}}, "512 tokens and types for 2"),
            ("llama", {"change": {"tokenizer.ggml.tokens": ["a", "b"]}}, "types for 512"),
            ("llama", {"change": {"llama.embedding_length": 32}}, "need (32, 512)"),
            ("llama", {"change": {"llama.context_length": 0}}, "context_length is 0"),
            ("qwen3", {"change": {"qwen3.block_count": 1}}, "block_count is 1, the tensors have 2 blocks"),
            ("qwen35", {"change": {"qwen35.block_count": 3}}, "was counted but not stored"),
            ("qwen35", {"drop": ("qwen35.rope.dimension_sections",)}, "dimension_sections is None"),
            ("qwen35", {"change": {"qwen35.rope.dimension_sections": [2, 1, 1]}}, "four numbers"),
            ("qwen35", {"change": {"qwen35.full_attention_interval": 0}}, "full_attention_interval is 0"),
            ("qwen35", {"change": {"qwen35.nextn_predict_layers": 2}}, "nextn_predict_layers is 2 of 2 blocks"),
            ("qwen35", {"change": {"qwen35.nextn_predict_layers": 1}}, "blk.1.nextn.eh_proj.weight is missing"),
            (
                "qwen35",
                {"change": {"qwen35.attention.recurrent_layers": [True]}},
                "recurrent_layers tells of 1 layers, block_count is 2",
            ),
        ],
    )  # fmt: skip
    def test_it_is_said_in_one_sentence(self, tmp_path, architecture, options, found):
        assert found in refusal(written(tmp_path, architecture, **options))

    def test_an_embedding_model_may_be_looked_at(self, tmp_path):
        path = written(tmp_path, change={"llama.pooling_type": 1}, drop=("tokenizer.ggml.eos_token_id",))
        assert examine(path).template_warning is None

    def test_a_download_that_ended_early_names_the_missing_bytes(self, tmp_path):
        path = written(tmp_path)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 100)
        assert "the file is truncated" in refusal(path)


class TestOdd:
    @pytest.mark.parametrize(
        ("options", "found"),
        [
            (
                {"change": {"tokenizer.ggml.eos_token_id": 11}},
                "end-of-text token 11 is 'ċ', an ordinary piece",
            ),
            ({"drop": ("tokenizer.ggml.pre",)}, "tokenizer.ggml.pre"),
        ],
    )
    def test_it_is_a_warning(self, tmp_path, options, found):
        path = written(tmp_path, **options)
        [warning] = examine(path).warnings
        assert found in warning

    def test_a_known_end_that_is_typed_as_text_is_not_odd(self, tmp_path):
        assert examine(written(tmp_path, change={"tokenizer.ggml.token_type": [1] * 512})).warnings == ()

    def test_bytes_after_the_last_tensor(self, tmp_path):
        path = written(tmp_path)
        with path.open("ab") as file:
            file.write(b"\0" * 10_000)
        [warning] = examine(path).warnings
        assert warning == "10000 bytes follow the last tensor"

    def test_a_turn_s_end_that_is_no_token(self, tmp_path):
        tokens = gguf.GGUFReader(written(tmp_path)).fields["tokenizer.ggml.tokens"].contents()
        renamed = ["<|turn_end|>" if token == "<|im_end|>" else token for token in tokens]
        change = {"tokenizer.ggml.tokens": renamed, "tokenizer.chat_template": HERMES}
        intake = examine(written(tmp_path, change=change))
        assert "which its vocabulary does not have" in intake.warnings[-1]
        without = examine(written(tmp_path, change={"tokenizer.ggml.tokens": renamed}))
        assert without.template_warning == "it has no chat template; tools will not work with it"


def with_mtp(path, *, counted=True):
    """A qwen35 of three blocks and one for multi-token prediction, as the official converter writes it."""
    shape = TinyShape("qwen35", n_layer=4, interval=2)
    n = shape.n_embd
    extra = {
        "blk.3.nextn.eh_proj.weight": np.ones((n, 2 * n), dtype=np.float32),
        "blk.3.nextn.enorm.weight": np.ones(n, dtype=np.float32),
        "blk.3.nextn.hnorm.weight": np.ones(n, dtype=np.float32),
    }
    change = {"qwen35.nextn_predict_layers": 1} if counted else {"qwen35.block_count": 3}
    return write_gguf(path, shape, extra=extra, change=change)


class TestMultiTokenPrediction:
    """One block more than the model has layers: the trap of 33 against 32."""

    def test_a_block_that_is_counted_and_stored_is_odd_and_runs(self, tmp_path):
        path = with_mtp(tmp_path / "mtp.gguf")
        assert examine(path).warnings == (
            "it has 1 block for multi-token prediction, which takes memory and is not used",
        )
        with Model(path) as model:
            context = Context(model, ContextOptions(n_ctx=32, n_threads=1))
            context.close()

    def test_a_block_that_is_stored_and_not_counted_is_wrong(self, tmp_path):
        found = "block_count is 3, the tensors have 4 blocks (one is for multi-token prediction and was not counted)"
        assert found in refusal(with_mtp(tmp_path / "mtp.gguf", counted=False))

    def test_a_block_that_is_counted_and_not_stored_is_wrong(self, tmp_path):
        change = {"qwen35.block_count": 3, "qwen35.nextn_predict_layers": 1}
        found = "the tensors have 2 blocks (a multi-token-prediction block was counted but not stored)"
        assert found in refusal(written(tmp_path, "qwen35", change=change))


class TestMemory:
    """The result is remembered for this very file."""

    @pytest.fixture
    def reads(self, monkeypatch):
        """The files that were really read."""
        seen = []

        def read(path):
            seen.append(path)
            return read_gguf_header(path)

        monkeypatch.setattr(intake_module, "read_gguf_header", read)
        return seen

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_what_is_remembered_is_what_was_found(self, tmp_path, reads, architecture):
        path = written(tmp_path, architecture, drop=("tokenizer.ggml.pre",))
        first, second = examine(path), examine(path)
        assert first == second
        assert [s.offset for s in arrays(first)] == [s.offset for s in arrays(second)]
        assert reads == [path]

    def test_another_file_at_the_same_path_is_read_anew(self, tmp_path, reads):
        path = written(tmp_path)
        examine(path)
        shutil.copy(write_gguf(tmp_path / "y.gguf", TinyShape("qwen3")), path)
        assert examine(path).facts["architecture"] == "qwen3"
        os.utime(path, ns=(1, 1))
        examine(path)
        assert len(reads) == 3

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"memory": 1}', '{"memory": 0}', "null", "\0"])
    def test_a_memory_that_cannot_be_read_costs_a_reading(self, tmp_path, reads, content):
        path = written(tmp_path)
        first = examine(path)
        [place] = (tmp_path / "cache" / "intake").iterdir()
        place.write_text(content)
        assert examine(path) == first
        assert len(reads) == 2

    def test_what_an_older_version_remembered_is_not_used(self, tmp_path, reads):
        path = written(tmp_path)
        examine(path)
        [place] = (tmp_path / "cache" / "intake").iterdir()
        place.write_text(json.dumps(json.loads(place.read_text()) | {"memory": 0}))
        examine(path)
        assert len(reads) == 2

    def test_where_nothing_can_be_kept_it_works_all_the_same(self, tmp_path, reads):
        (tmp_path / "cache").write_text("a file")
        path = written(tmp_path)
        assert examine(path) == examine(path)
        assert len(reads) == 2

    def test_what_is_remembered_does_not_grow_for_ever(self, tmp_path, reads):
        folder = tmp_path / "cache" / "intake"
        folder.mkdir(parents=True)
        for i in range(400):
            (folder / f"{i}.json").touch()
        path = written(tmp_path)
        examine(path)
        assert len(list(folder.iterdir())) < 300
        examine(path)
        assert reads == [path]

    def test_a_refusal_is_not_remembered(self, tmp_path):
        path = written(tmp_path, drop=("tokenizer.ggml.eos_token_id",))
        refusal(path)
        assert not (tmp_path / "cache").exists()

    def test_the_second_time_takes_less_than_50_ms_for_a_large_vocabulary(self, tmp_path):
        path = write_gguf(tmp_path / "x.gguf", TinyShape("qwen35", n_vocab=30_000))
        examine(path)
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            examine(path)
            taken.append(time.perf_counter() - started)
        assert min(taken) < 0.05


def arrays(intake):
    return [value for value in intake.header.metadata.values() if isinstance(value, SkippedArray)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    shape = {"n_vocab": 300, "n_embd": 32, "n_ff": 32}
    paths = {a: write_gguf(folder / f"{a}.gguf", TinyShape(architecture=a, **shape)) for a in ARCHITECTURES}
    return {a: (path.read_bytes(), read_gguf_header(path).data_offset) for a, path in paths.items()}


LENGTHS = [0, 1, 2**20, 2**31, 2**63, 2**64 - 1]
EDGES = [0, 1, 2, 7, 8, 9, 127, 255]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_damage_raises_anything_but_a_model_error(raw, architecture, tmp_path):
    content, n_header = raw[architecture]
    path = tmp_path / "x.gguf"

    @settings(max_examples=int(os.environ.get("FUZZ_INTAKE", "100")), deadline=None,
              suppress_health_check=list(HealthCheck), database=None)  # fmt: skip
    @given(data=st.data())
    def damage(data):
        damaged = bytearray(content)
        for _ in range(data.draw(st.integers(1, 4))):
            position = data.draw(st.integers(0, n_header - 9))
            how = data.draw(st.sampled_from(["byte", "u32", "u64", "cut", "insert"]))
            if how == "byte":
                damaged[position] = data.draw(st.sampled_from(EDGES))
            elif how == "u32":
                struct.pack_into("<I", damaged, position, data.draw(st.integers(0, 2**32 - 1)))
            elif how == "u64":
                struct.pack_into(
                    "<Q",
                    damaged,
                    position,
                    data.draw(st.sampled_from([0, 1, 2**20, 2**31, 2**63, 2**64 - 1])),
                )
            elif how == "cut":
                del damaged[max(position, 16) :]
                damaged += bytes(n_header)
            else:
                damaged[position:position] = data.draw(st.binary(min_size=1, max_size=9))
        path.write_bytes(damaged)
        message = ""
        try:
            examine_chat(path)
        except ModelError as exc:
            message = str(exc)
        assert "\n" not in message
        assert len(message) < 1000 + len(str(path))

    damage()


@given(content=st.binary(max_size=200))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_no_content_raises_anything_but_a_model_error(content, tmp_path):
    path = tmp_path / "x.gguf"
    for head in (b"", b"GGUF", b"GGUF\3\0\0\0"):
        path.write_bytes(head + content)
        with pytest.raises(ModelError):
            examine(path)
