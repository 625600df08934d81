"""File types by name: three that are written straight from the checkpoint, and those that llama.cpp quantizes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from gguf import LlamaFileType

from convert.errors import QuantizeError
from convert.floats import FloatType

DEFAULT_TYPES = ("bf16", "q8_0", "q4_k_m")
# What llama.cpp refuses to quantize blindly (llama-quant.cpp, tensor_requires_imatrix).
_NEED_IMATRIX = {"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "q2_k_s"}
_FLOATS = {"ALL_F32": "f32", "MOSTLY_F16": "f16", "MOSTLY_BF16": "bf16"}


@dataclass(frozen=True, slots=True)
class FileType:
    """name: as in file names. ftype: llama.cpp's number. float_type: None for quantized types."""

    name: str
    ftype: int
    float_type: FloatType | None

    @property
    def needs_imatrix(self) -> bool:
        return self.name in _NEED_IMATRIX


def known_types() -> dict[str, FileType]:
    """Every type by its lower-case name."""
    found = {}
    for member in LlamaFileType:
        if member is LlamaFileType.GUESSED:
            continue
        name = _FLOATS.get(member.name, member.name.removeprefix("MOSTLY_").lower())
        kind = cast(FloatType, name.upper()) if member.name in _FLOATS else None
        found[name] = FileType(name, int(member), kind)
    return found


def parse_types(names: Iterable[str]) -> tuple[FileType, ...]:
    """The named types, each once, in the order given. Raises QuantizeError for an unknown name."""
    known = known_types()
    parsed: dict[str, FileType] = {}
    for name in names:
        if name.lower() not in known:
            raise QuantizeError(f"unknown type {name!r}; known: {', '.join(sorted(known))}")
        parsed[name.lower()] = known[name.lower()]
    return tuple(parsed.values())
