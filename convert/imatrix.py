"""Importance matrices in llama.cpp's GGUF format: for each weight, how strongly each input column is used.

A tensor `NAME.in_sum2` holds the sums of squared activations, `NAME.counts` the number of rows summed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.errors import ConvertError, ImatrixError
from convert.gguf_file import GgufTensor, read_gguf
from convert.manifest import file_sha256

_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True, slots=True)
class Imatrix:
    """values: mean squared activation of each input column, by the name of the weight, shape (columns,)."""

    path: Path
    sha256: str
    values: Mapping[str, NDArray[np.float32]]


def read_imatrix(path: Path) -> Imatrix:
    """The matrix in the file. Raises ImatrixError if it is not one in the GGUF format, or holds NaN or infinity."""
    try:
        file = read_gguf(path)
    except ConvertError as error:
        raise ImatrixError(f"{path} is not an importance matrix in GGUF format: {error}") from error
    names = [name.removesuffix(_SUMS) for name in file.tensors if name.endswith(_SUMS)]
    if file.metadata.get("general.type") != "imatrix" or not names:
        raise ImatrixError(f"{path} is a GGUF file but not an importance matrix")
    values = {}
    for name in names:
        if name + _COUNTS not in file.tensors:
            raise ImatrixError(f"{path} has sums but no counts for {name}")
        sums, counts = _floats(file.tensors[name + _SUMS]), _floats(file.tensors[name + _COUNTS])
        # A column group that never ran says nothing: neutral, as llama.cpp's own quantizer treats it.
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0).astype(np.float32)
        if not np.isfinite(mean).all():
            raise ImatrixError(f"{path} holds NaN or infinity for {name}")
        values[name] = mean.reshape(-1)
    return Imatrix(path, file_sha256(path), values)


def _floats(tensor: GgufTensor) -> NDArray[np.float32]:
    """The tensor's values, shape (matrices, columns)."""
    raw = tensor.read_rows(0, tensor.n_rows)
    return raw.view(np.float32).reshape(tensor.n_rows, -1)


def check_imatrix(imatrix: Imatrix, columns: Mapping[str, int]) -> None:
    """Raise ImatrixError unless the matrix is of this model. columns: input columns of each weight."""
    for name, values in imatrix.values.items():
        if name not in columns or columns[name] != values.size:
            found = columns.get(name, "no such tensor")
            raise ImatrixError(
                f"{imatrix.path} is of another model: {name} has {values.size} columns there, here {found}"
            )
