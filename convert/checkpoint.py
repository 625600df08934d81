"""A safetensors checkpoint on disk: its config, its tensors by name, and rows of them on demand.

Only headers are read on opening. Weights are read with plain file reads into small blocks and not through a
memory map, because mapped pages count as resident memory and would grow with the checkpoint.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.errors import CheckpointError, UnsupportedModel
from convert.floats import STORAGE, Array, FloatType

_HEADER_LIMIT_BYTES = 100_000_000  # the limit of the safetensors format
_INDEX_NAME = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies. shape is as stored, row-major; offset counts from the start of the file."""

    name: str
    kind: FloatType
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def n_rows(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def n_columns(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * STORAGE[self.kind].itemsize

    def read_rows(self, start: int, stop: int) -> Array:
        """Rows start..stop as a (stop - start, n_columns) array in the stored type (BF16 as uint16)."""
        dtype = STORAGE[self.kind]
        count = (stop - start) * self.n_columns
        values = np.fromfile(
            self.path, dtype=dtype, count=count, offset=self.offset + start * self.n_columns * dtype.itemsize
        )
        if values.size != count:
            raise CheckpointError(f"{self.path.name} ends inside tensor {self.name}")
        return values.reshape(stop - start, self.n_columns)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An opened checkpoint. config is config.json as parsed; the raw dict goes no further than `ModelConfig`."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    @property
    def n_bytes(self) -> int:
        return sum(tensor.n_bytes for tensor in self.tensors.values())


def open_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`: one model.safetensors, or shards with their index.

    Raises CheckpointError for a folder that is not one, a missing shard, a tensor that the index names and no
    shard holds, a damaged or truncated file; UnsupportedModel for already quantized weights.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder")
    config = read_json(folder / "config.json")
    if config.get("quantization_config"):
        settings = config["quantization_config"]
        method = settings.get("quant_method", "unknown") if isinstance(settings, dict) else settings
        raise UnsupportedModel(
            f"{folder} is quantized already ({method}); convert the unquantized checkpoint"
        )
    tensors: dict[str, StoredTensor] = {}
    for path in _weight_files(folder):
        for tensor in read_safetensors_header(path).values():
            if tensor.name in tensors:
                raise CheckpointError(
                    f"tensor {tensor.name} lies in {tensors[tensor.name].path.name} and {path.name}"
                )
            tensors[tensor.name] = tensor
    _check_index(folder, tensors)
    return Checkpoint(folder=folder, config=config, tensors=tensors)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint. Raises CheckpointError if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is not a checkpoint: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, not an object")
    return value


def one_line(error: BaseException) -> str:
    """The error's first line, for a message of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX_NAME
    if index.is_file():
        weight_map = _weight_map(index)
        paths = [folder / name for name in sorted(set(weight_map.values()))]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise CheckpointError(f"{folder} lacks {len(missing)} of {len(paths)} shards, first {missing[0]}")
        return paths
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    if any(folder.glob("*.bin")):
        raise CheckpointError(f"{folder} holds pickled weights (.bin); only safetensors are read")
    raise CheckpointError(f"{folder} is not a checkpoint: it has neither model.safetensors nor {_INDEX_NAME}")


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(value, str) for value in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map")
    if any("/" in name or "\\" in name for name in weight_map.values()):
        raise CheckpointError(f"{index} names a shard outside its folder")
    return weight_map


def _check_index(folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
    index = folder / _INDEX_NAME
    if not index.is_file():
        return
    for name, shard in _weight_map(index).items():
        if name not in tensors or tensors[name].path.name != shard:
            raise CheckpointError(f"{index.name} names tensor {name} in {shard}, which does not hold it")


def read_safetensors_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, without their data.

    Raises CheckpointError for a damaged or truncated file and UnsupportedModel for a type that is not
    F32, F16 or BF16.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER_LIMIT_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        size = path.stat().st_size
    except (OSError, ValueError, RecursionError, struct.error) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {one_line(error)}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not a safetensors file: its header is no object")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return {name: _stored(path, name, entry, 8 + length, size) for name, entry in entries.items()}


def _stored(path: Path, name: str, entry: Mapping[str, Any], data_start: int, file_size: int) -> StoredTensor:
    try:
        kind, shape = str(entry["dtype"]), tuple(map(int, entry["shape"]))
        start, stop = map(int, entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a damaged entry for tensor {name}") from error
    if kind not in STORAGE:
        raise UnsupportedModel(f"tensor {name} is stored as {kind}; F32, F16 and BF16 are supported")
    tensor = StoredTensor(name, kind, shape, path, data_start + start)
    if min(start, *shape, 0) < 0 or tensor.n_bytes != stop - start or data_start + stop > file_size:
        raise CheckpointError(f"{path} is truncated or damaged at tensor {name}")
    return tensor
