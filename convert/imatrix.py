"""Importance matrices in llama.cpp's GGUF format: for each weight, how strongly each input column is used.

A tensor `NAME.in_sum2` holds the sums of squared activations, `NAME.counts` the number of rows summed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFValueType, GGUFWriter
from numpy.typing import NDArray

from convert.child import NativeFailure, OnProgress, run_native
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


@dataclass(frozen=True, slots=True)
class ImatrixSummary:
    """What was made: weights with statistics, pieces and tokens of the calibration text."""

    path: Path
    n_weights: int
    n_chunks: int
    n_tokens: int


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


def make_imatrix(
    model: Path,
    texts: Sequence[str],
    out: Path,
    *,
    dataset: str,
    n_ctx: int = 512,
    n_threads: int = 1,
    on_progress: OnProgress = lambda done, total: None,
) -> ImatrixSummary:
    """Run the model over the texts and write the importance matrix to `out`, through a temporary name.

    dataset: the calibration's name, stored in the file. n_ctx: tokens a piece; memory grows with it times the
    vocabulary, since logits of all positions are asked for: without them llama.cpp skips most rows of the last layer.
    """
    request = {"model": str(model), "texts": list(texts), "n_ctx": n_ctx, "n_threads": n_threads}
    with _partial(out) as partial:
        arrays, n_chunks, n_tokens = _collected(model, request, on_progress)
        _write_imatrix(partial, arrays, dataset, n_chunks, n_ctx)
    return ImatrixSummary(out, len(arrays) // 2, n_chunks, n_tokens)


@contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """The file that becomes `out`. It is made before the work, so that a place that cannot be written costs none."""
    partial = out.with_name(f".{out.name}.part")
    try:
        if out.is_dir():
            raise ImatrixError(f"{out} is a folder; name the file to write in it")
        partial.touch()
        try:
            yield partial
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ImatrixError(f"{out} cannot be written: {error.strerror or error}") from error


def _collected(
    model: Path, request: dict[str, object], on_progress: OnProgress
) -> tuple[dict[str, NDArray[np.float32]], int, int]:
    """Sums and counts by name, pieces, tokens."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "sums.npz"
        try:
            result = run_native("collect", {**request, "target": str(target)}, on_progress)
        except NativeFailure as error:
            raise ImatrixError(f"{model.name}: {error}") from error
        with np.load(target) as stored:
            arrays = {name: stored[name] for name in stored.files}
    return arrays, int(result["n_chunks"]), int(result["n_tokens"])


def _write_imatrix(
    path: Path, arrays: Mapping[str, NDArray[np.float32]], dataset: str, n_chunks: int, n_ctx: int
) -> None:
    writer = GGUFWriter(path, "imatrix")
    writer.kv_data[0].clear()  # an importance matrix has no architecture
    writer.add_string("general.type", "imatrix")
    writer.add_key_value("imatrix.datasets", [dataset], GGUFValueType.ARRAY, sub_type=GGUFValueType.STRING)
    writer.add_uint32("imatrix.chunk_count", n_chunks)
    writer.add_uint32("imatrix.chunk_size", n_ctx)
    for name in sorted(arrays):
        writer.add_tensor(name, arrays[name].reshape(1, -1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
