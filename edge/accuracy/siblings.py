"""Whether two GGUF files hold the same model in different quantizations. Reads headers and small tensors only.

What quantizing leaves alone must be equal: architecture, its numbers, vocabulary, tensor shapes, the tensors that stay
in float32 (norms), and the checkpoint that both say they come from; and some weights must point the same way.
Fine-tunes of one base whose adapters leave the norms alone can only be told apart by what the files say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.engine.gguf_checks import F32
from edge.engine.gguf_header import GgufHeader, SkippedArray, TensorInfo, read_gguf_header

_N_ROWS = 64
_MIN_COSINE = 0.8  # Q2_K keeps 0.96 of random weights; two models of one shape have about 0
_MAX_FLOATS = 1 << 16  # larger float32 tensors are weights that one file happens to leave unquantized
# Of what a file says about itself, what names its source; compared where both files say it.
_SOURCE_KEYS = re.compile(
    r"smoltools_edge\.(source|source\.revision|adapter\.\d+\.sha256)|general\.base_model\.\d+\.repo_url"
)


def sibling_faults(reference: Path, candidate: Path) -> list[str]:
    """What speaks against the files being siblings; empty if nothing does. Raises ModelError."""
    one, other = read_gguf_header(reference), read_gguf_header(candidate)
    if one.architecture != other.architecture:
        return [f"the architecture is {other.architecture!r}, not {one.architecture!r}"]
    faults = [*_vocabulary_faults(one, other), *_metadata_faults(one, other), *_shape_faults(one, other)]
    return faults or _float_faults(one, other) or _weight_faults(one, other)


def _vocabulary_faults(one: GgufHeader, other: GgufHeader) -> Iterator[str]:
    for key, what in (("tokens", "vocabulary"), ("merges", "merges of the vocabulary")):
        name = f"tokenizer.ggml.{key}"
        mine, theirs = one.metadata.get(name), other.metadata.get(name)
        if mine == theirs:
            continue
        if (
            isinstance(mine, SkippedArray)
            and isinstance(theirs, SkippedArray)
            and mine.length != theirs.length
        ):
            yield f"the {what} has {theirs.length} entries, not {mine.length}"
        else:
            yield f"the {what} differs"


def _metadata_faults(one: GgufHeader, other: GgufHeader) -> Iterator[str]:
    prefix = f"{one.architecture}."
    for key in sorted({*one.metadata, *other.metadata}):
        mine, theirs = one.metadata.get(key), other.metadata.get(key)
        if mine == theirs:
            continue
        if key.startswith(prefix) or key == "tokenizer.ggml.pre":
            yield f"{key} is {_shown(theirs)}, not {_shown(mine)}"
        elif _SOURCE_KEYS.fullmatch(key) and mine is not None and theirs is not None:
            yield f"it was made from {_shown(theirs)}, not {_shown(mine)}"


def _shape_faults(one: GgufHeader, other: GgufHeader) -> Iterator[str]:
    # A tied output matrix is the same model whether it is stored twice or once.
    for name in sorted({*one.tensors, *other.tensors} - {"output.weight"}):
        mine, theirs = one.tensors.get(name), other.tensors.get(name)
        if mine is None or theirs is None:
            yield f"tensor {name} is in one file only"
            return
        if mine.shape != theirs.shape:
            yield f"tensor {name} has the shape {theirs.shape}, not {mine.shape}"
            return


def _float_faults(one: GgufHeader, other: GgufHeader) -> list[str]:
    with one.path.open("rb") as mine, other.path.open("rb") as theirs:
        for name, tensor in one.tensors.items():
            twin = other.tensors.get(name)
            if twin is None or tensor.ggml_type != F32 or twin.ggml_type != F32:
                continue
            n_floats = _n_elements(tensor)
            if n_floats > _MAX_FLOATS:
                continue
            mine.seek(one.data_offset + tensor.offset)
            theirs.seek(other.data_offset + twin.offset)
            if mine.read(4 * n_floats) != theirs.read(4 * n_floats):
                return [f"tensor {name}, which no quantization changes, holds other numbers"]
    return []


def _weight_faults(one: GgufHeader, other: GgufHeader) -> list[str]:
    """Whether rows of some weights point elsewhere, which no quantization in use makes them do."""
    middle = (one.number("block_count") or 0) // 2
    for name in ("token_embd.weight", f"blk.{middle}.ffn_up.weight", f"blk.{middle}.ffn_down.weight"):
        mine, theirs = _first_rows(one, name), _first_rows(other, name)
        if mine is None or theirs is None:
            continue
        length = float(np.linalg.norm(mine) * np.linalg.norm(theirs))
        cosine = float((mine * theirs).sum()) / length if length else 1.0
        if cosine < _MIN_COSINE:
            return [f"the weights of {name} are others (cosine {cosine:.2f})"]
    return []


def _first_rows(header: GgufHeader, name: str) -> NDArray[np.float32] | None:
    """Rows of a matrix as numbers; None where it is missing or its type cannot be read here."""
    from gguf import GGMLQuantizationType, dequantize
    from gguf.constants import GGML_QUANT_SIZES

    tensor = header.tensors.get(name)
    if tensor is None or len(tensor.shape) != 2:
        return None
    kind = GGMLQuantizationType(tensor.ggml_type)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    n_rows, row_bytes = min(_N_ROWS, tensor.shape[1]), tensor.shape[0] // block * block_bytes
    with header.path.open("rb") as file:
        file.seek(header.data_offset + tensor.offset)
        raw = np.frombuffer(file.read(n_rows * row_bytes), dtype=np.uint8).reshape(n_rows, row_bytes)
    try:
        rows: NDArray[np.float32] = dequantize(raw, kind)
    except NotImplementedError:
        return None
    return rows


def _n_elements(tensor: TensorInfo) -> int:
    n = 1
    for length in tensor.shape:
        n *= length
    return n


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
