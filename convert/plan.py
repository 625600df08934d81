"""What a GGUF file will hold, decided before a weight is read: metadata fields and one plan a tensor.

A plan is data, not code: the written tensor is the source's rows in `row_order`, its columns in `column_order`,
through `function`. That makes every transform invertible, which the proof after writing relies on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convert.floats import FloatType

FieldKind = Literal["u32", "i32", "u64", "f32", "bool", "str", "i32[]", "f32[]", "bool[]", "str[]"]
Scalar = int | float | bool | str
Function = Literal["none", "add_one", "negative_exp"]
Order = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Field:
    """One GGUF metadata entry; kind is the type that llama.cpp's loader asks for."""

    key: str
    kind: FieldKind
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TensorPlan:
    """How one GGUF tensor comes from the checkpoint.

    name: in the file. source: in the checkpoint, after the architecture's renaming. shape, source_shape: row-major
    (GGUF lists dimensions in the opposite order). constant: the values of a tensor that no checkpoint stores, such as
    the rope factors; then source is empty.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    source_shape: tuple[int, ...]
    row_order: Order | None = None
    column_order: Order | None = None
    function: Function = "none"
    constant: NDArray[np.float32] | None = None

    @property
    def keeps_float32(self) -> bool:
        """Whether llama.cpp wants this tensor in F32 whatever the file's type; otherwise it aborts while decoding."""
        return (
            len(self.shape) <= 1
            or not self.name.endswith(".weight")
            or self.name.endswith(("_norm.weight", "ssm_conv1d.weight"))
        )

    def stored_as(self, file_type: FloatType) -> FloatType:
        return "F32" if self.keeps_float32 else file_type

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)


def copied(name: str, source: str, *shape: int) -> TensorPlan:
    """A tensor that is stored as it is."""
    return TensorPlan(name, source, shape, shape)


def inverse(order: Order) -> Order:
    """The permutation that undoes `order`."""
    undo = np.empty_like(order)
    undo[order] = np.arange(order.size)
    return undo
