"""The proof after writing: each file is read back and compared with what it should be.

A float file is compared bit by bit with the checkpoint after undoing every transform; a quantized file by the
error of its dequantized rows. Both are loaded by llama.cpp, tokenize the probe texts as the checkpoint's tokenizer
does, and decode a token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from convert.checks import Check, CheckFailed
from convert.errors import VerifyError
from convert.floats import STORAGE, Array, FloatType, cast, to_float32
from convert.gguf_file import GgufFile, GgufTensor
from convert.lora import WeightSource
from convert.model import ModelPlan
from convert.plan import Field, TensorPlan, inverse
from convert.running import running_checks
from convert.tokenizer import Vocabulary
from convert.weights import apply, row_ranges

_SAMPLED_ROWS = 16


def verify_float(
    file: GgufFile, plan: ModelPlan, vocabulary: Vocabulary, fields: Sequence[Field], file_type: FloatType
) -> tuple[Check, ...]:
    """All checks of a file that was written from the checkpoint. Raises VerifyError at the first that fails."""
    return _run(
        file,
        {
            "tensors": lambda: _check_tensors(file, plan, file_type),
            "metadata": lambda: _check_metadata(file, fields),
            "weights": lambda: _check_weights(file, plan, file_type),
            **running_checks(file, vocabulary, fields),
        },
    )


def verify_quantized(
    file: GgufFile, source: GgufFile, vocabulary: Vocabulary, fields: Sequence[Field]
) -> tuple[Check, ...]:
    """All checks of a quantized file against the float file it was made from."""
    return _run(
        file,
        {
            "tensors": lambda: _check_same_tensors(file, source),
            "metadata": lambda: _check_metadata(file, fields),
            "weights": lambda: _check_quantized_weights(file, source),
            **running_checks(file, vocabulary, fields),
        },
    )


def _run(file: GgufFile, checks: dict[str, Callable[[], str]]) -> tuple[Check, ...]:
    done = []
    for name, check in checks.items():
        try:
            done.append(Check(name, check()))
        except CheckFailed as error:
            shown = file.path.name.removeprefix(".").removesuffix(".part")
            raise VerifyError(shown, name, str(error)) from error
    return tuple(done)


def _check_tensors(file: GgufFile, plan: ModelPlan, file_type: FloatType) -> str:
    """The set, shapes and types that the loader needs; the loader itself does not check all of them."""
    expected = {tensor.name: (tensor.shape, tensor.stored_as(file_type)) for tensor in plan.tensors}
    found = {tensor.name: (tensor.shape, tensor.type) for tensor in file.tensors.values()}
    _equal_sets(set(found), set(expected))
    for name, wanted in expected.items():
        if found[name] != wanted:
            raise CheckFailed(f"{name} is {found[name]}, not {wanted}")
    return f"{len(found)} tensors, {_type_counts(file)}"


def _check_same_tensors(file: GgufFile, source: GgufFile) -> str:
    _equal_sets(set(file.tensors), set(source.tensors))
    for name, tensor in file.tensors.items():
        if tensor.shape != source.tensors[name].shape:
            raise CheckFailed(f"{name} has shape {tensor.shape}, not {source.tensors[name].shape}")
        if source.tensors[name].type == "F32" and tensor.type != "F32":
            raise CheckFailed(f"{name} is {tensor.type}, llama.cpp needs it in F32")
    return f"{len(file.tensors)} tensors, {_type_counts(file)}"


def _equal_sets(found: set[str], expected: set[str]) -> None:
    if missing := sorted(expected - found):
        raise CheckFailed(f"{len(missing)} tensors are missing, first {missing[0]}")
    if extra := sorted(found - expected):
        raise CheckFailed(f"{len(extra)} tensors too many, first {extra[0]}")


def type_counts(file: GgufFile) -> dict[str, int]:
    """How many tensors the file has of each ggml type, most first."""
    return dict(Counter(tensor.type for tensor in file.tensors.values()).most_common())


def _type_counts(file: GgufFile) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in type_counts(file).items())


def fallbacks(file: GgufFile, source: GgufFile, file_type: str) -> tuple[str, ...]:
    """'name: type' of tensors whose rows do not divide into the recipe's blocks and so got another type."""
    block = 256 if "_k" in file_type or (file_type.startswith(("iq", "tq")) and file_type != "iq4_nl") else 32
    return tuple(
        f"{name}: {tensor.type}"
        for name, tensor in file.tensors.items()
        if tensor.shape[-1] % block and source.tensors[name].type != "F32"
    )


def _check_metadata(file: GgufFile, fields: Sequence[Field]) -> str:
    for field in fields:
        if field.key not in file.metadata:
            raise CheckFailed(f"key {field.key} is missing")
        found = file.metadata[field.key]
        if not _same_value(found, field):
            raise CheckFailed(f"key {field.key} is {_short(found)}, not {_short(field.value)}")
    return f"{len(fields)} keys"


def _same_value(found: object, field: Field) -> bool:
    if field.kind == "f32":
        return bool(np.float32(found) == np.float32(field.value))  # type: ignore[arg-type]
    if isinstance(field.value, tuple):
        return found == list(field.value)
    return found == field.value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _check_weights(file: GgufFile, plan: ModelPlan, file_type: FloatType) -> str:
    """Undo every transform and compare with the checkpoint: exact bits, or for merged weights half a last place."""
    n_bytes = n_merged = 0
    for tensor_plan in plan.tensors:
        source = plan.source_of(tensor_plan)
        written = file.tensors[tensor_plan.name]
        if source is None:
            continue  # a constant; it has no source to go back to
        if source.is_merged:
            _check_merged(tensor_plan, source, written, tensor_plan.stored_as(file_type))
            n_merged += 1
        else:
            _check_copied(tensor_plan, source, written, tensor_plan.stored_as(file_type))
            n_bytes += written.n_bytes
    exact = f"{n_bytes / 1e6:,.1f} MB equal the checkpoint bit for bit"
    return exact + (f", {n_merged} merged tensors within rounding" if n_merged else "")


def _undone_rows(
    plan: TensorPlan, written: GgufTensor, kind: FloatType, ranges: Iterator[tuple[int, int]]
) -> Iterator[tuple[int, int, Array]]:
    """Source row ranges with the written values in the source's order, still in the stored type and form."""
    n_columns = plan.n_elements // plan.source_shape[0]
    flat = GgufTensor(
        written.name, written.type, (plan.source_shape[0], n_columns), written.path, written.offset
    )
    for start, stop in ranges:
        rows = flat.read_rows(start, stop).view(STORAGE[kind]).reshape(stop - start, n_columns)
        if plan.row_order is not None:
            rows = rows[inverse(plan.row_order)]
        if plan.column_order is not None:
            rows = rows[:, inverse(plan.column_order)]
        yield start, stop, rows


def _check_copied(plan: TensorPlan, source: WeightSource, written: GgufTensor, kind: FloatType) -> None:
    stored = source.stored
    ranges = row_ranges(plan, stored.n_rows, stored.n_columns)
    for start, stop, rows in _undone_rows(plan, written, kind, ranges):
        original, original_kind = stored.read_rows(start, stop), stored.kind
        if plan.function != "none":
            original, original_kind = apply(plan.function, to_float32(original, original_kind)), "F32"
        if not np.array_equal(_bits(rows), _bits(cast(original, original_kind, kind))):
            raise CheckFailed(f"{plan.name} differs from {stored.name} in rows {start}..{stop}")


def _bits(values: Array) -> Array:
    return np.ascontiguousarray(values).view(np.uint8)


def _check_merged(plan: TensorPlan, source: WeightSource, written: GgufTensor, kind: FloatType) -> None:
    """Sampled rows against W + scale * B @ A in float64, computed apart from the merge that wrote them."""
    stored = source.stored
    sample = np.unique(np.linspace(0, stored.n_rows - 1, _SAMPLED_ROWS).astype(int))
    wanted = _merged_in_float64(source, sample)
    if plan.function != "none":
        wanted = apply(plan.function, wanted.astype(np.float32)).astype(np.float64)
    for start, stop, rows in _undone_rows(
        plan, written, kind, row_ranges(plan, stored.n_rows, stored.n_columns)
    ):
        chosen = (sample >= start) & (sample < stop)
        found = to_float32(rows[sample[chosen] - start], kind).astype(np.float64)
        error = np.abs(found - wanted[chosen])
        if (error > _rounding(kind) * np.abs(wanted[chosen]) + 1e-6).any():
            raise CheckFailed(f"{plan.name} is off by {error.max():.2g} from the merge of {stored.name}")


def _merged_in_float64(source: WeightSource, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    stored = source.stored
    wanted = np.concatenate([to_float32(stored.read_rows(row, row + 1), stored.kind) for row in rows])
    total = wanted.astype(np.float64)
    for pair in source.pairs:
        a, b = (
            to_float32(factor.read_rows(0, factor.n_rows), factor.kind).astype(np.float64)
            for factor in (pair.a, pair.b)
        )
        total += pair.scale * (a.T[rows] @ b.T if pair.is_embedding else b[rows] @ a)
    return total


def _rounding(kind: FloatType) -> float:
    """Half a unit in the last place, relative, with room for float32 sums."""
    return {"F32": 2.0**-20, "F16": 2.0**-10, "BF16": 2.0**-8}[kind]


def _check_quantized_weights(file: GgufFile, source: GgufFile) -> str:
    """Relative error of dequantized sample rows; a swapped or misplaced tensor has an error above 1."""
    errors = {}
    for name, tensor in file.tensors.items():
        if tensor.type == source.tensors[name].type:
            _check_same_bytes(tensor, source.tensors[name])
        else:
            errors[name] = _relative_error(tensor, source.tensors[name])
    if not errors:
        return "all tensors equal the source"
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] < 0.9:
        raise CheckFailed(f"{worst} has a relative error of {errors[worst]:.2f} against the float file")
    mean = sum(errors.values()) / len(errors)
    return f"relative error {mean:.4f} on average, {errors[worst]:.4f} at most ({worst})"


def _check_same_bytes(tensor: GgufTensor, source: GgufTensor) -> None:
    if not np.array_equal(tensor.read_rows(0, tensor.n_rows), source.read_rows(0, source.n_rows)):
        raise CheckFailed(f"{tensor.name} should be a copy of the float file's and is not")


def _relative_error(tensor: GgufTensor, source: GgufTensor) -> float:
    squared = total = 0.0
    for row in np.unique(np.linspace(0, tensor.n_rows - 1, _SAMPLED_ROWS).astype(int)):
        found = _dequantized(tensor, int(row))
        wanted = _dequantized(source, int(row))
        squared += float(np.square(found - wanted).sum())
        total += float(np.square(wanted).sum())
    return float(np.sqrt(squared / total)) if total else float(np.sqrt(squared))


def _dequantized(tensor: GgufTensor, row: int) -> NDArray[np.float64]:
    values = dequantize(tensor.read_rows(row, row + 1), GGMLQuantizationType[tensor.type])
    return np.asarray(values, np.float64).reshape(-1)
