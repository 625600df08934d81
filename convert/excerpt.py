"""The first layers of a large GGUF file as a small model of its own, for the check that it decodes.

llama.cpp maps a whole file into memory when it loads it, 8 GB for a 4B model. One layer of every kind, with the file's
own bytes and types, shows the same; of the embedding the first rows are enough, without a tokenizer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from convert.floats import Array
from convert.gguf_file import GgufFile, GgufTensor
from convert.gguf_write import TensorEntry, write_gguf
from convert.plan import Field

_BLOCK_BYTES = 32 * 2**20
_KEPT_ROWS = 4096
_BY_TOKEN = ("token_embd.weight", "output.weight")


def write_excerpt(path: Path, file: GgufFile, fields: Sequence[Field]) -> int:
    """Write the first layers of `file`, so many that every kind of layer is among them. Returns how many."""
    n_layers = layers_needed(file)
    tensors = [_cut(tensor) for tensor in file.tensors.values() if _layer(tensor.name) < n_layers]
    n_vocab = next(tensor.n_rows for tensor in tensors if tensor.name == "token_embd.weight")
    kept = [field for field in fields if not field.key.startswith("tokenizer.")]
    write_gguf(
        path,
        arch=file.architecture,
        fields=[
            *(
                _shortened(field, file, n_layers)
                for field in kept
                if field.key != f"{file.architecture}.vocab_size"
            ),
            Field(f"{file.architecture}.vocab_size", "u32", n_vocab),
            Field("tokenizer.ggml.model", "str", "no_vocab"),
        ],
        tensors=[TensorEntry(tensor.name, tensor.shape, tensor.type) for tensor in tensors],
        blocks=lambda i: _blocks(tensors[i]),
    )
    return n_layers


def layers_needed(file: GgufFile) -> int:
    """The smallest number of first layers that have together every tensor that any layer has."""
    parts: dict[int, set[str]] = defaultdict(set)
    for name in file.tensors:
        if match := re.match(r"blk\.(\d+)\.(.+)", name):
            parts[int(match[1])].add(match[2])
    wanted, seen = set().union(*parts.values()), set[str]()
    for layer in sorted(parts):
        seen |= parts[layer]
        if seen == wanted:
            return layer + 1
    return len(parts)


def _layer(name: str) -> int:
    """The tensor's layer; -1 for those outside the layers."""
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else -1


def _cut(tensor: GgufTensor) -> GgufTensor:
    """The embedding and the head with their first rows only."""
    if tensor.name not in _BY_TOKEN:
        return tensor
    return replace(tensor, shape=(min(tensor.n_rows, _KEPT_ROWS), *tensor.shape[1:]))


def _shortened(field: Field, file: GgufFile, n_layers: int) -> Field:
    arch = file.architecture
    if field.key == f"{arch}.block_count":
        return replace(field, value=n_layers)
    if field.key == f"{arch}.attention.recurrent_layers" and isinstance(field.value, tuple):
        return replace(field, value=field.value[:n_layers])
    return field


def _blocks(tensor: GgufTensor) -> Iterator[Array]:
    step = max(1, _BLOCK_BYTES // tensor.row_bytes)
    for start in range(0, tensor.n_rows, step):
        yield tensor.read_rows(start, min(start + step, tensor.n_rows))
