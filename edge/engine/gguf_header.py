"""Reads and checks a GGUF header without llama.cpp. Pure Python, tensors untouched.

llama.cpp loads some damaged or incomplete files and aborts the process later, at the first decode. What is
checked here is therefore what the loader does not check: that every length stays inside the file, and that
the tensors that the architecture computes with are there in the type that the kernels take.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SUPPORTED_ARCHITECTURES = ("llama", "qwen3", "qwen35")

_MAX_COUNT = 1 << 20  # metadata keys, tensors: real files have hundreds
_MAX_ARRAY = 1 << 24
_ARRAY, _STRING, _BOOL = 9, 8, 7
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    _BOOL: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
F32 = 0


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, shape (fastest axis first, as GGUF has it), ggml type number, offset in the data section."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata and tensor list. Arrays of strings are kept as their length only (vocabularies are large)."""

    path: Path
    version: int
    metadata: dict[str, object]
    tensors: dict[str, TensorInfo]
    data_offset: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        """`general.architecture`, or the empty string."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """The integer under `<architecture>.<key>`; None when it is absent or not an integer."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class StringArray:
    """Stands for an array of strings that was skipped. sha256: of its bytes, to tell vocabularies apart."""

    length: int
    sha256: str = ""


class _Damaged(Exception):
    """Where and how the header is damaged; becomes a ModelError with the file's name."""


class _Cursor:
    """Reads little-endian values and never beyond the end of the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.pos, self.end = data, 0, len(data)

    def take(self, n_bytes: int, what: str) -> bytes:
        if n_bytes > self.end - self.pos:
            raise _Damaged(f"the file ends inside {what} (byte {self.pos})")
        start, self.pos = self.pos, self.pos + n_bytes
        return self.data[start : self.pos]

    def scalar(self, fmt: str, what: str) -> int | float | bool:
        value: int | float | bool = struct.unpack(fmt, self.take(struct.calcsize(fmt), what))[0]
        return value

    def count(self, fmt: str, limit: int, what: str) -> int:
        value = int(self.scalar(fmt, what))
        if value > limit:
            raise _Damaged(f"{what} is {value}, at most {limit} is plausible")
        return value

    def string(self, what: str) -> str:
        raw = self.take(self.count("<Q", self.end, f"the length of {what}"), what)
        return raw.decode("utf-8", "replace")

    def skip_strings(self, length: int, what: str) -> StringArray:
        unpack, data, pos, end = struct.Struct("<Q").unpack_from, self.data, self.pos, self.end
        start = pos
        for _ in range(length):
            if pos + 8 > end:
                raise _Damaged(f"the file ends inside {what} (byte {pos})")
            pos += 8 + unpack(data, pos)[0]
        if pos > end:
            raise _Damaged(f"{what} reaches beyond the end of the file")
        self.pos = pos
        return StringArray(length, hashlib.sha256(data[start:pos]).hexdigest())


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of the GGUF file at `path`; 40 ms for 49,152 tokens, 0.3 s for 248,320.

    Raises ModelError: missing, a directory, empty, not GGUF, truncated or with a damaged header.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a directory; a model is one .gguf file")
        with path.open("rb") as file:
            magic = file.read(4)
            if not magic:
                raise ModelError(f"{path} is empty; a .gguf file is expected")
            if magic != MAGIC:
                raise ModelError(f"{path} is not a GGUF file: it begins with {magic!r}, expected {MAGIC!r}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(path, _Cursor(data))
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}") from None
    except _Damaged as exc:
        raise ModelError(f"{path} is damaged: {exc}; get the file again") from None
    except OSError as exc:
        raise ModelError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def _parse(path: Path, cursor: _Cursor) -> GgufHeader:
    cursor.take(4, "the magic")
    version = int(cursor.scalar("<I", "the version"))
    if version not in VERSIONS:
        raise _Damaged(f"GGUF version {version}, known are {VERSIONS[0]} and {VERSIONS[1]}")
    n_tensors = cursor.count("<Q", _MAX_COUNT, "the number of tensors")
    n_metadata = cursor.count("<Q", _MAX_COUNT, "the number of metadata keys")
    metadata: dict[str, object] = {}
    for i in range(n_metadata):
        key = cursor.string(f"metadata key {i}")
        metadata[key] = _read_value(cursor, _label(key))
    tensors = {}
    for i in range(n_tensors):
        info = _read_tensor_info(cursor, i)
        tensors[info.name] = info
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise _Damaged(f"general.alignment is {alignment!r}, a power of two is needed")
    data_offset = -(-cursor.pos // alignment) * alignment
    return GgufHeader(path, version, metadata, tensors, data_offset, cursor.end)


def _read_value(cursor: _Cursor, key: str) -> object:
    kind = int(cursor.scalar("<I", f"the type of {key}"))
    if kind == _STRING:
        return cursor.string(key)
    if kind in _SCALARS:
        return cursor.scalar(_SCALARS[kind], key)
    if kind != _ARRAY:
        raise _Damaged(f"{key} has the unknown value type {kind}")
    element = int(cursor.scalar("<I", f"the element type of {key}"))
    length = cursor.count("<Q", _MAX_ARRAY, f"the length of {key}")
    if element == _STRING:
        return cursor.skip_strings(length, key)
    if element not in _SCALARS:
        raise _Damaged(f"{key} has the unknown element type {element}")
    fmt = f"<{length}{_SCALARS[element][1]}"
    return list(struct.unpack(fmt, cursor.take(struct.calcsize(fmt), key)))


def _label(name: str) -> str:
    """A name out of the file, fit for a message: damaged ones can be kilobytes of anything."""
    return name if len(name) <= 80 and name.isprintable() else ascii(name[:32])


def _read_tensor_info(cursor: _Cursor, index: int) -> TensorInfo:
    name = cursor.string(f"the name of tensor {index}")
    label = _label(name)
    n_dims = cursor.count("<I", 4, f"the number of dimensions of {label}")
    shape = tuple(cursor.count("<Q", 1 << 40, f"a dimension of {label}") for _ in range(n_dims))
    ggml_type = int(cursor.scalar("<I", f"the type of {label}"))
    offset = int(cursor.scalar("<Q", f"the offset of {label}"))
    return TensorInfo(name, shape, ggml_type, offset)


# What each architecture computes with in a block; (suffix, must be F32).
_COMMON = (
    ("attn_norm.weight", True),
    ("ffn_gate.weight", False),
    ("ffn_up.weight", False),
    ("ffn_down.weight", False),
)
_ATTENTION = (
    ("attn_q.weight", False),
    ("attn_k.weight", False),
    ("attn_v.weight", False),
    ("attn_output.weight", False),
)
_QK_NORM = (("attn_q_norm.weight", True), ("attn_k_norm.weight", True))
_LINEAR = (
    ("attn_qkv.weight", False), ("attn_gate.weight", False), ("ssm_conv1d.weight", True), ("ssm_dt.bias", True),
    ("ssm_a", True), ("ssm_alpha.weight", False), ("ssm_beta.weight", False), ("ssm_norm.weight", True),
    ("ssm_out.weight", False),
)  # fmt: skip


def check_runnable(header: GgufHeader, type_bytes: Callable[[int, int], int | None]) -> None:
    """Raises ModelError for what llama.cpp would refuse late, or not refuse and abort on.

    type_bytes: bytes of a row of `n` elements in a ggml type, None for a type or row length that does not exist.
    """
    arch = header.architecture
    if arch not in SUPPORTED_ARCHITECTURES:
        found = f"architecture {arch[:40]!a}" if arch else "no general.architecture"
        allowed = ", ".join(SUPPORTED_ARCHITECTURES)
        raise ModelError(f"{header.path} has {found}; supported are {allowed}")
    try:
        _check_extent(header, type_bytes)
        _check_numbers(header)
        _check_blocks(header)
    except _Damaged as exc:
        raise ModelError(f"{header.path} cannot be run: {exc}; convert or download it again") from None


def check_whole(header: GgufHeader, type_bytes: Callable[[int, int], int | None]) -> None:
    """Raises ModelError for a file whose tensors reach beyond its end; asks nothing of its architecture."""
    try:
        _check_extent(header, type_bytes)
    except _Damaged as exc:
        raise ModelError(f"{header.path} cannot be run: {exc}; convert or download it again") from None


def _check_extent(header: GgufHeader, type_bytes: Callable[[int, int], int | None]) -> None:
    for tensor in header.tensors.values():
        n_rows = 1
        for n in tensor.shape[1:]:
            n_rows *= n
        row_bytes = type_bytes(tensor.ggml_type, tensor.shape[0] if tensor.shape else 1)
        if row_bytes is None or not all(tensor.shape):
            raise _Damaged(
                f"tensor {_label(tensor.name)} has type {tensor.ggml_type} and shape {tensor.shape}"
            )
        end = header.data_offset + tensor.offset + row_bytes * n_rows
        if end > header.file_bytes:
            missing = end - header.file_bytes
            raise _Damaged(
                f"the file is truncated: tensor {_label(tensor.name)} ends {missing} bytes beyond its end"
            )


def _check_numbers(header: GgufHeader) -> None:
    needed = ["block_count", "context_length", "embedding_length", "attention.head_count"]
    if header.architecture == "qwen35":
        needed += [
            "ssm.conv_kernel",
            "ssm.state_size",
            "ssm.group_count",
            "ssm.time_step_rank",
            "ssm.inner_size",
        ]
    for key in needed:
        value = header.number(key)
        if value is None or not 0 < value < 1 << 31:
            found = "is missing" if value is None else f"is {value}"
            raise _Damaged(f"{header.architecture}.{key} {found}")
    if header.architecture == "qwen35":
        sections = header.metadata.get("qwen35.rope.dimension_sections")
        if not isinstance(sections, list) or len(sections) != 4 or not any(sections):
            raise _Damaged(
                f"qwen35.rope.dimension_sections is {sections!r}, four numbers, not all 0, are needed"
            )
    if not isinstance(header.metadata.get("tokenizer.ggml.tokens"), StringArray):
        raise _Damaged("it has no vocabulary (tokenizer.ggml.tokens)")


def _check_blocks(header: GgufHeader) -> None:
    n_block = header.number("block_count") or 0
    listed = {int(m[1]) for name in header.tensors if (m := re.match(r"blk\.(\d{1,9})\.", name))}
    if listed and n_block != max(listed) + 1:
        raise _Damaged(
            f"{header.architecture}.block_count is {n_block}, the tensors have {max(listed) + 1} blocks"
            + (
                " (a multi-token-prediction block was counted but not stored)"
                if n_block > max(listed) + 1
                else ""
            )
        )
    for name in ("token_embd.weight", "output_norm.weight"):
        _require(header, name, must_be_f32=name.endswith("norm.weight"))
    for block in range(n_block):
        for suffix, must_be_f32 in _block_tensors(header, block):
            _require(header, f"blk.{block}.{suffix}", must_be_f32)


def _block_tensors(header: GgufHeader, block: int) -> tuple[tuple[str, bool], ...]:
    if header.architecture == "llama":
        return (*_COMMON, *_ATTENTION, ("ffn_norm.weight", True))
    if header.architecture == "qwen3":
        return (*_COMMON, *_ATTENTION, *_QK_NORM, ("ffn_norm.weight", True))
    mixer = _LINEAR if _is_recurrent(header, block) else (*_ATTENTION, *_QK_NORM)
    return (*_COMMON, *mixer, ("post_attention_norm.weight", True))


def _is_recurrent(header: GgufHeader, block: int) -> bool:
    layers = header.metadata.get("qwen35.attention.recurrent_layers")
    if isinstance(layers, list) and block < len(layers):
        return bool(layers[block])
    interval = header.number("full_attention_interval") or 4
    return (block + 1) % interval != 0


def _require(header: GgufHeader, name: str, must_be_f32: bool) -> None:
    tensor = header.tensors.get(name)
    if tensor is None:
        raise _Damaged(f"tensor {name} is missing")
    if must_be_f32 and tensor.ggml_type != F32:
        raise _Damaged(f"tensor {name} has ggml type {tensor.ggml_type}, only F32 can be computed with")
