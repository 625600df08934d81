"""Writing a GGUF file with one block of one tensor in memory at a time.

gguf's writer keeps every array until the end, so it writes the head only, and the data is appended here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

from convert.floats import STORAGE, Array, FloatType
from convert.plan import Field, TensorPlan

_ALIGNMENT = 32
_VALUE_TYPES = {
    "u32": GGUFValueType.UINT32,
    "i32": GGUFValueType.INT32,
    "u64": GGUFValueType.UINT64,
    "f32": GGUFValueType.FLOAT32,
    "bool": GGUFValueType.BOOL,
    "str": GGUFValueType.STRING,
}


def write_gguf(
    path: Path,
    *,
    arch: str,
    fields: Sequence[Field],
    tensors: Sequence[TensorPlan],
    file_type: FloatType,
    blocks: Callable[[TensorPlan, FloatType], Iterable[Array]],
    written: Callable[[TensorPlan], None] = lambda plan: None,
) -> None:
    """Write the file and flush it to the disk.

    blocks: the values of one tensor in file order (`convert.weights.written_blocks`). written: called after
    each tensor.
    """
    _write_head(path, arch, fields, tensors, file_type)
    with path.open("ab") as file:
        _pad(file)
        for plan in tensors:
            for block in blocks(plan, plan.stored_as(file_type)):
                file.write(block.data)
            _pad(file)
            written(plan)
        file.flush()
        os.fsync(file.fileno())


def data_bytes(tensors: Iterable[TensorPlan], file_type: FloatType) -> int:
    """How many bytes the tensors of a file of this type take, padding included."""
    sizes = (plan.n_elements * STORAGE[plan.stored_as(file_type)].itemsize for plan in tensors)
    return sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)


def _write_head(
    path: Path, arch: str, fields: Sequence[Field], tensors: Sequence[TensorPlan], file_type: FloatType
) -> None:
    writer = GGUFWriter(path, arch)
    try:
        for field in fields:
            _add(writer, field)
        for plan in tensors:
            kind = plan.stored_as(file_type)
            n_bytes = plan.n_elements * STORAGE[kind].itemsize
            writer.add_tensor_info(
                plan.name, plan.shape, STORAGE[kind], n_bytes, raw_dtype=GGMLQuantizationType[kind]
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add(writer: GGUFWriter, field: Field) -> None:
    if field.kind.endswith("[]"):
        item = _VALUE_TYPES[field.kind.removesuffix("[]")]
        writer.add_key_value(field.key, list(_values(field)), GGUFValueType.ARRAY, sub_type=item)
    else:
        writer.add_key_value(field.key, field.value, _VALUE_TYPES[field.kind])


def _values(field: Field) -> tuple[object, ...]:
    assert isinstance(field.value, tuple)
    return field.value


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))
