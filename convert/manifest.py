"""The manifest beside the files: what was made, from what, with which digest, and what was checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convert.checks import Check
from convert.provenance import Provenance


@dataclass(frozen=True, slots=True)
class Output:
    """One finished file. tensor_types: how many tensors got each ggml type. fallbacks: 'name: type' where the
    recipe's type did not fit the rows."""

    type: str
    path: Path
    size_bytes: int
    sha256: str
    recipe: str
    imatrix_sha256: str | None
    tensor_types: dict[str, int]
    fallbacks: tuple[str, ...]
    checks: tuple[Check, ...]

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "path": str(self.path)}


def file_sha256(path: Path) -> str:
    """Hex digest of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(
    path: Path, outputs: Sequence[Output], provenance: Provenance, notes: Sequence[str]
) -> Path:
    """Write the manifest, through a temporary name, and return its path. File names in it are relative to it.

    Files of an earlier run with the same provenance stay listed.
    """
    written = [{**output.as_json(), "path": output.path.name} for output in outputs]
    origin = json.loads(json.dumps(asdict(provenance)))  # tuples as the lists that a file gives back
    names = {entry["path"] for entry in written}
    kept = [entry for entry in _earlier_files(path, origin) if entry["path"] not in names]
    content = {"files": kept + written, "provenance": origin, "notes": list(notes)}
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return partial.replace(path)


def _earlier_files(path: Path, provenance: object) -> list[dict[str, Any]]:
    """Entries of an earlier manifest for files of the same origin that are still there: another type made later."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content["files"] if content["provenance"] == provenance else []
        return [entry for entry in entries if (path.parent / entry["path"]).is_file()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
