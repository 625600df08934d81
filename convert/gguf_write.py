"""Writing a GGUF file with one block of one tensor in memory at a time.

gguf's writer keeps every array until the end, so it writes the head only, and the data is appended here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, GGUFWriter

from convert.floats import Array
from convert.plan import Field

_ALIGNMENT = 32
_VALUE_TYPES = {
    "u32": GGUFValueType.UINT32,
    "i32": GGUFValueType.INT32,
    "u64": GGUFValueType.UINT64,
    "f32": GGUFValueType.FLOAT32,
    "bool": GGUFValueType.BOOL,
    "str": GGUFValueType.STRING,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor to write: row-major shape and ggml's name of the type."""

    name: str
    shape: tuple[int, ...]
    type: str

    @property
    def row_bytes(self) -> int:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[self.type]]
        return int(self.shape[-1] // block * size)

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes


def write_gguf(
    path: Path,
    *,
    arch: str,
    fields: Sequence[Field],
    tensors: Sequence[TensorEntry],
    blocks: Callable[[int], Iterable[Array]],
) -> None:
    """Write the file and flush it to the disk.

    blocks: the data of tensors[i] in file order, as contiguous arrays; they are written as they come.
    """
    _write_head(path, arch, fields, tensors)
    with path.open("ab") as file:
        _pad(file)
        for i in range(len(tensors)):
            for block in blocks(i):
                file.write(block.data)
            _pad(file)
        file.flush()
        os.fsync(file.fileno())


def padded_bytes(tensors: Iterable[TensorEntry]) -> int:
    """How many bytes the tensors take in a file."""
    return sum(-(-tensor.n_bytes // _ALIGNMENT) * _ALIGNMENT for tensor in tensors)


def _write_head(path: Path, arch: str, fields: Sequence[Field], tensors: Sequence[TensorEntry]) -> None:
    writer = GGUFWriter(path, arch)
    try:
        for field in fields:
            _add(writer, field)
        for tensor in tensors:
            # Shapes in bytes, which gguf turns back into elements for every type alike.
            byte_shape = (*tensor.shape[:-1], tensor.row_bytes)
            kind = GGMLQuantizationType[tensor.type]
            writer.add_tensor_info(
                tensor.name, byte_shape, np.dtype(np.uint8), tensor.n_bytes, raw_dtype=kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add(writer: GGUFWriter, field: Field) -> None:
    if isinstance(field.value, tuple):
        item = _VALUE_TYPES[field.kind.removesuffix("[]")]
        writer.add_key_value(field.key, list(field.value), GGUFValueType.ARRAY, sub_type=item)
    else:
        writer.add_key_value(field.key, field.value, _VALUE_TYPES[field.kind])


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))
