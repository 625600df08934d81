"""Reading a GGUF file back: every metadata value, every tensor's place, and rows of its data on demand.

gguf's own reader makes several array objects of each string, which takes gigabytes for a real vocabulary.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from convert.errors import ConvertError

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9
_MAX_LENGTH = 1 << 31


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor. shape is row-major, the reverse of the file's order; type is ggml's name, as in Q4_K."""

    name: str
    type: str
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def n_rows(self) -> int:
        """Rows of the innermost dimension; 1-D tensors are one row."""
        return math.prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[self.type]]
        return int(self.shape[-1] // block * size)

    @property
    def n_bytes(self) -> int:
        return self.n_rows * self.row_bytes

    def read_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The raw bytes of rows start..stop, shape (stop - start, row_bytes)."""
        count = (stop - start) * self.row_bytes
        raw = np.fromfile(self.path, np.uint8, count=count, offset=self.offset + start * self.row_bytes)
        if raw.size != count:
            raise ConvertError(f"{self.path} ends inside tensor {self.name}")
        return raw.reshape(stop - start, self.row_bytes)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The parsed head of a GGUF file; tensors in file order."""

    path: Path
    metadata: Mapping[str, object]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))


def read_gguf(path: Path) -> GgufFile:
    """The head of the file at `path`. Raises ConvertError if it is not GGUF version 3 or is damaged."""
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except FileNotFoundError as error:
        raise ConvertError(f"{path} does not exist") from error
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise ConvertError(f"{path} is not a readable GGUF file: {error}") from error


def _read(path: Path, file: BinaryIO) -> GgufFile:
    if file.read(4) != b"GGUF":
        raise ValueError("it does not begin with 'GGUF'")
    version = _scalar(file, "<I")
    if version != 3:
        raise ValueError(f"version {version}, not 3")
    n_tensors, n_fields = _length(file), _length(file)
    metadata = {}
    for _ in range(n_fields):
        key = _string(file)
        metadata[key] = _value(file, int(_scalar(file, "<I")))
    entries = [_tensor_entry(file) for _ in range(n_tensors)]
    alignment = int(str(metadata.get("general.alignment", 32)))
    data_start = -(-file.tell() // alignment) * alignment
    tensors = {
        name: GgufTensor(name, kind, shape, path, data_start + offset)
        for name, kind, shape, offset in entries
    }
    size = path.stat().st_size
    for tensor in tensors.values():
        if tensor.offset + tensor.n_bytes > size:
            raise ValueError(f"it ends inside tensor {tensor.name}")
    return GgufFile(path, metadata, tensors)


def _tensor_entry(file: BinaryIO) -> tuple[str, str, tuple[int, ...], int]:
    name = _string(file)
    dimensions = [int(_scalar(file, "<Q")) for _ in range(int(_scalar(file, "<I")))]
    kind = GGMLQuantizationType(int(_scalar(file, "<I"))).name
    return name, kind, tuple(reversed(dimensions)), int(_scalar(file, "<Q"))


def _scalar(file: BinaryIO, form: str) -> float:
    value: float = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return value


def _length(file: BinaryIO) -> int:
    length = int(_scalar(file, "<Q"))
    if length > _MAX_LENGTH:
        raise ValueError(f"a length of {length}")
    return length


def _string(file: BinaryIO) -> str:
    return file.read(_length(file)).decode("utf-8")


def _value(file: BinaryIO, kind: int) -> object:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _scalar(file, _SCALARS[kind])
    item = int(_scalar(file, "<I"))
    length = _length(file)
    if item == _STRING:
        return [_string(file) for _ in range(length)]
    form = _SCALARS[item]
    return np.frombuffer(file.read(length * struct.calcsize(form)), form).tolist()
