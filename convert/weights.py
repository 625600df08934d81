"""Weights as they are written: the plan applied to a source, block by block, checked for NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from convert.errors import WeightError
from convert.floats import Array, FloatType, cast, non_finite, to_float32
from convert.lora import WeightSource, row_reader
from convert.plan import Function, TensorPlan

# 8 Mi elements are 32 MiB in float32: large enough for full disk speed, small enough that the few copies that a
# merge makes stay under 200 MiB.
_BLOCK_ELEMENTS = 8 * 2**20


def written_blocks(plan: TensorPlan, source: WeightSource | None, target: FloatType) -> Iterator[Array]:
    """The tensor's values in file order and type, as consecutive (rows, columns) blocks.

    A tensor whose rows are reordered comes as one block; these are the attention projections, never the embedding.
    Raises WeightError for NaN, infinity, or a value outside the range of `target`.
    """
    if plan.constant is not None:
        yield cast(plan.constant.reshape(-1, 1), "F32", target)
        return
    assert source is not None
    for start, stop in row_ranges(plan, source.stored.n_rows, source.stored.n_columns):
        if start == 0:
            read = row_reader(source)
        rows = read(start, stop)
        found = non_finite(rows, source.kind)
        if found:
            raise WeightError(plan.source, found)
        yield _converted(plan, rows, source.kind, target)


def row_ranges(plan: TensorPlan, n_rows: int, n_columns: int) -> Iterator[tuple[int, int]]:
    """Ranges of source rows that are handled at once."""
    step = n_rows if plan.row_order is not None else max(1, _BLOCK_ELEMENTS // max(n_columns, 1))
    for start in range(0, n_rows, step):
        yield start, min(start + step, n_rows)


def _converted(plan: TensorPlan, rows: Array, kind: FloatType, target: FloatType) -> Array:
    if plan.row_order is not None:
        rows = rows[plan.row_order]
    if plan.column_order is not None:
        rows = rows[:, plan.column_order]
    if plan.function != "none":
        rows, kind = apply(plan.function, to_float32(rows, kind)), "F32"
    values = cast(rows, kind, target)
    if target == "F16" and kind != "F16" and non_finite(values, "F16"):
        raise WeightError(plan.source, "a value beyond the range of F16")
    if target == "BF16" and kind == "F32" and non_finite(values, "BF16"):
        raise WeightError(plan.source, "a value beyond the range of BF16")
    return np.ascontiguousarray(values)


def apply(function: Function, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The stored form of a parameter that ggml wants precomputed."""
    if function == "add_one":
        return values + np.float32(1.0)
    if function == "negative_exp":
        # In float64, so that the float32 is the nearest one on every machine; numpy's float32 exp is off by one bit.
        return -np.exp(values.astype(np.float64)).astype(np.float32)
    return values
