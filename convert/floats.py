"""Conversions between the float types of a checkpoint, on raw bits: numpy has no bfloat16.

A BF16 array is carried as uint16, so that copying it never passes through a float.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatType = Literal["F32", "F16", "BF16"]
Array = NDArray[Any]

STORAGE: dict[FloatType, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_EXPONENT: dict[FloatType, int] = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}


def to_float32(values: Array, kind: FloatType) -> NDArray[np.float32]:
    """The same values as float32; exact for all three types. An F32 array is returned as it is."""
    if kind == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def from_float32(values: NDArray[np.float32], kind: FloatType) -> Array:
    """The values in `kind`, rounded to nearest even as ggml does; F16 overflow becomes infinity."""
    if kind == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype(STORAGE[kind], copy=False)


def cast(values: Array, source: FloatType, target: FloatType) -> Array:
    """`values` of type `source` as `target`; the same array, untouched, where the types are equal."""
    return values if source == target else from_float32(to_float32(values, source), target)


def non_finite(values: Array, kind: FloatType) -> str | None:
    """'NaN' or 'infinity' where the array holds one, else None. Reads bits, so that no copy is cast."""
    exponent = _EXPONENT[kind]
    bits = values.view(np.uint32 if kind == "F32" else np.uint16)
    masked: Array = np.bitwise_and(bits, bits.dtype.type(exponent))
    if masked.size == 0 or int(masked.max()) != exponent:
        return None
    mantissa: Array = np.bitwise_and(bits[masked == exponent], bits.dtype.type(_mantissa_mask(kind)))
    return "NaN" if mantissa.any() else "infinity"


def _mantissa_mask(kind: FloatType) -> int:
    return {"F32": 0x7FFFFF, "F16": 0x3FF, "BF16": 0x7F}[kind]
