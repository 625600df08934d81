"""Short names of contents: of JSON values, token ids and files. Same name, same content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_N_DIGITS = 16
_END_BYTES, _N_SAMPLES, _SAMPLE_BYTES = 1 << 20, 64, 4096


def digest_of(value: object) -> str:
    """Of a JSON value, whatever the order of its keys."""
    return _short(json.dumps(value, sort_keys=True, default=str).encode())


def tokens_digest(tokens: Sequence[int]) -> str:
    """Of token ids."""
    return _short(np.asarray(tokens, dtype="<i4").tobytes())


def file_identity(path: Path) -> str:
    """Of a file: its size, both ends and 64 places between; reads 2.3 MB at most."""
    n_bytes = path.stat().st_size
    found = hashlib.sha256(str(n_bytes).encode())
    with path.open("rb") as file:
        found.update(file.read(_END_BYTES))
        for i in range(_N_SAMPLES):
            file.seek(n_bytes * i // _N_SAMPLES)
            found.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, n_bytes - _END_BYTES))
        found.update(file.read(_END_BYTES))
    return found.hexdigest()[:_N_DIGITS]


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_N_DIGITS]
