"""Sums of squared activations before each weight, collected while llama.cpp computes.

llama.cpp calls back before and after every node of the graph; a matrix product's second operand is what its weight
is multiplied with. No import of llama.cpp: the caller passes pointers.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

_F32 = 0  # GGML_TYPE_F32


class _Tensor(ctypes.Structure):
    """The head of struct ggml_tensor (ggml.h); llama-cpp-python has no binding for it."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]


class ActivationSums:
    """A graph callback. sums: by weight name, shape (columns,), float64. counts: rows summed so far.

    Only weights inside blocks ("blk.") are followed: the embedding is a look-up, and a tied head is the embedding.
    """

    def __init__(self, matmul_op: int) -> None:
        self._matmul_op = matmul_op
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, int] = {}

    def __call__(self, pointer: int, ask: bool, user_data: int | None) -> bool:
        """ask: whether this node's data is wanted; otherwise the node has been computed. False would stop the graph."""
        tensor = ctypes.cast(pointer, ctypes.POINTER(_Tensor)).contents
        if ask:
            return self._is_wanted(tensor)
        if self._is_wanted(tensor):
            self._add(tensor.src[0].contents.name.decode(), _rows(tensor.src[1].contents))
        return True

    def _is_wanted(self, tensor: _Tensor) -> bool:
        if tensor.op != self._matmul_op or not tensor.src[0] or not tensor.src[1]:
            return False
        weight, activations = tensor.src[0].contents, tensor.src[1].contents
        return bool(weight.name.startswith(b"blk.") and activations.type == _F32)

    def _add(self, name: str, rows: NDArray[np.float32]) -> None:
        squares = np.square(rows, dtype=np.float64).sum(axis=0)
        self.sums[name] = self.sums.get(name, 0.0) + squares
        self.counts[name] = self.counts.get(name, 0) + rows.shape[0]


def _rows(tensor: _Tensor) -> NDArray[np.float32]:
    """The tensor's values as (rows, columns), without a copy; rows of all outer dimensions in order."""
    strides = tuple(tensor.nb[i] for i in (3, 2, 1, 0))
    shape = tuple(tensor.ne[i] for i in (3, 2, 1, 0))
    n_bytes = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 4
    raw = (ctypes.c_char * n_bytes).from_address(tensor.data)
    values: NDArray[np.float32] = np.ndarray(shape, np.float32, buffer=raw, strides=strides)
    return values.reshape(-1, shape[-1])
