"""No file may reach a native abort: each is refused in one line, or loads and decodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.engine.context import Context, ContextOptions
from edge.engine.gguf_header import read_gguf_header
from edge.engine.model import Model
from edge.errors import EdgeError, ModelError
from tests.tiny_gguf import TinyShape, write_gguf

ARCHITECTURES = ("llama", "qwen3", "qwen35")
REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return {a: write_gguf(folder / f"{a}.gguf", TinyShape(architecture=a)) for a in ARCHITECTURES}


def refusal(path) -> str:
    with pytest.raises(ModelError) as error:
        Model(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_whole_file_loads_and_decodes(tiny, architecture):
    with Model(tiny[architecture]) as model:
        context = Context(model, ContextOptions(n_threads=1))
        context.slots[0].decode([1, 2, 3])
        assert context.slots[0].tokens == [1, 2, 3]
        context.close()


def test_a_missing_file(tmp_path):
    assert "there is no file" in refusal(tmp_path / "none.gguf")


def test_a_directory(tmp_path):
    assert "is a directory" in refusal(tmp_path)


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty.gguf"
    path.touch()
    assert "is empty" in refusal(path)


def test_another_kind_of_file(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04 a zip")
    assert "is not a GGUF file: it begins with b'PK\\x03\\x04'" in refusal(path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "locked.gguf"
    path.write_bytes(b"GGUF")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read: Permission denied" in refusal(path)


def test_an_unknown_version(tmp_path, tiny):
    raw = bytearray(tiny["llama"].read_bytes())
    raw[4] = 99
    path = tmp_path / "v99.gguf"
    path.write_bytes(raw)
    assert "GGUF version 99, known are 2 and 3" in refusal(path)


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.02, 0.03, 0.1, 0.5, 0.99, 0.99999])
def test_a_truncated_file(tmp_path, tiny, share):
    raw = tiny["qwen35"].read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(raw[: max(5, int(len(raw) * share))])
    message = refusal(path)
    assert "damaged" in message or "truncated" in message


def test_an_unknown_architecture(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", architecture="gpt2")
    assert "architecture 'gpt2'; supported are llama, qwen3, qwen35" in refusal(path)


@pytest.mark.parametrize(
    ("architecture", "options", "found"),
    [
        ("llama", {"drop": ("llama.block_count",)}, "llama.block_count is missing"),
        ("llama", {"change": {"llama.block_count": 3}}, "block_count is 3, the tensors have 2 blocks"),
        ("llama", {"change": {"llama.attention.head_count": 0}}, "attention.head_count is 0"),
        ("llama", {"drop": ("tokenizer.ggml.tokens",)}, "no vocabulary"),
        ("llama", {"drop": ("tokenizer.ggml.merges",)}, "cannot be loaded"),
        ("llama", {"drop": ("blk.1.ffn_up.weight",)}, "tensor blk.1.ffn_up.weight is missing"),
        ("llama", {"drop": ("token_embd.weight",)}, "tensor token_embd.weight is missing"),
        (
            "llama",
            {"as_f16": ("blk.0.attn_norm.weight",)},
            "blk.0.attn_norm.weight has ggml type 1, only F32",
        ),
        ("qwen3", {"drop": ("blk.0.attn_q_norm.weight",)}, "blk.0.attn_q_norm.weight is missing"),
        ("qwen35", {"drop": ("blk.0.attn_qkv.weight",)}, "blk.0.attn_qkv.weight is missing"),
        ("qwen35", {"drop": ("blk.0.attn_gate.weight",)}, "blk.0.attn_gate.weight is missing"),
        (
            "qwen35",
            {"as_f16": ("blk.0.ssm_conv1d.weight",)},
            "blk.0.ssm_conv1d.weight has ggml type 1, only F32",
        ),
        ("qwen35", {"change": {"qwen35.rope.dimension_sections": [0, 0, 0, 0]}}, "not all 0"),
        ("qwen35", {"drop": ("qwen35.ssm.state_size",)}, "qwen35.ssm.state_size is missing"),
        ("qwen35", {"change": {"qwen35.ssm.state_size": 8}}, "cannot be loaded"),
    ],
)
def test_an_incomplete_model(tmp_path, architecture, options, found):
    path = write_gguf(tmp_path / "x.gguf", TinyShape(architecture=architecture), **options)
    assert found in refusal(path)


_CHILD = """
import sys
from pathlib import Path
import random
from edge.engine.context import Context, ContextOptions
from edge.engine.model import Model
from edge.errors import EdgeError

source, scratch, first, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
raw = source.read_bytes()
refused = 0
for seed in range(first, last):
    print(seed, flush=True)
    rng = random.Random(seed)
    mutated = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        mutated[rng.randrange(4, HEADER_BYTES)] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
    scratch.write_bytes(mutated)
    try:
        with Model(scratch) as model:
            context = Context(model, ContextOptions(n_ctx=64, n_threads=1))
            context.slots[0].decode([1, 2, 3])
            context.close()
    except EdgeError as exc:
        assert "\\n" not in str(exc), exc
        refused += 1
print("refused", refused)
"""


@pytest.mark.model
@pytest.mark.parametrize("n_files", [20, pytest.param(60, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_corrupt_header_never_kills_the_process(tmp_path, tiny, architecture, n_files):
    n = int(os.environ.get("FUZZ_HEADERS", n_files))
    header_bytes = read_gguf_header(tiny[architecture]).data_offset  # the metadata and the tensor list
    code = _CHILD.replace("HEADER_BYTES", str(header_bytes))
    command = [sys.executable, "-c", code, str(tiny[architecture]), str(tmp_path / "m.gguf"), "0", str(n)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=REPO, check=False)
    assert result.returncode == 0, f"seed {result.stdout.split()[-1]}: {result.stderr[-500:]}"
    refused = int(result.stdout.split()[-1])
    assert 0 < refused < n  # some were caught, and some damage is harmless


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"n_ctx": 0}, "n_ctx is 0; this model allows 1 to 1024"),
        ({"n_ctx": -5}, "n_ctx is -5"),
        ({"n_ctx": 10**12}, "n_ctx is 1000000000000"),
        ({"n_threads": 0}, "n_threads is 0; allowed is 1 to 512"),
        ({"n_batch": 0}, "n_batch is 0"),
        ({"kv_type": "q2"}, "kv_type is 'q2'; allowed are f32, f16, q8_0"),
    ],
)
def test_an_impossible_context(tiny, options, found):
    with Model(tiny["llama"]) as model, pytest.raises(EdgeError) as error:
        Context(model, ContextOptions(**options))
    assert found in str(error.value)


def test_a_kv_cache_larger_than_the_free_memory_is_refused_with_what_would_fit(tmp_path):
    path = write_gguf(tmp_path / "x.gguf", TinyShape(n_ctx=2**31 - 1))
    with (
        Model(path) as model,
        pytest.raises(EdgeError, match=r"n_ctx=2147483647 needs .* MiB .* at most n_ctx=\d+ fits"),
    ):
        Context(model, ContextOptions(n_ctx=2**31 - 1))
