"""Models that are made on this machine: of what, which of their files are whole and of today's parts, where they lie.

`build` makes them; nothing is made or fetched here. Files count when `built.json` beside them, which is written last,
names them with their size and the key of the very parts that this program has now.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from edge.errors import CatalogueError
from edge.models.catalogue import BuiltSource, ModelEntry
from edge.models.folders import models_dir

MARKER = "built.json"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, slots=True)
class Parts:
    """What this program brings to a model. key: a digest of all that its files depend on."""

    adapter: Path
    chat_template: Path
    key: str


def parts_of(entry: ModelEntry, source: BuiltSource) -> Parts:
    """The parts of a model. Raises CatalogueError when one is not there or cannot be read."""
    adapter, template = _parts_dir() / source.adapter, _parts_dir() / source.chat_template
    digests = []
    for path in (*(adapter / name for name in _ADAPTER_FILES), template):
        try:
            facts = path.stat()
            digests.append(_file_sha256(path, facts.st_size, facts.st_mtime_ns))
        except OSError as exc:
            raise CatalogueError(
                f"{entry.name} is built with {path}, which cannot be read: {exc.strerror}; "
                "it belongs to this program: install it again, or get the file from its repository"
            ) from exc
    recipe = [source.recipe, source.base.sha256, entry.quantizations, digests]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    return Parts(adapter, template, key)


def _parts_dir() -> Path:
    """In the package where it was installed from a wheel, else the checkout."""
    packaged = Path(__file__).parent / "parts"
    return packaged if packaged.is_dir() else Path(__file__).parents[2]


@functools.cache
def _file_sha256(path: Path, _size_bytes: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def built_path(entry: ModelEntry, quantization: str) -> Path:
    """Where a file of the model lies: one folder a model, the quantization in the name."""
    return models_dir() / entry.name / f"{entry.name}-{quantization.lower()}.gguf"


def built_files(entry: ModelEntry, source: BuiltSource) -> set[Path]:
    """The files that are whole and made of today's parts."""
    folder = models_dir() / entry.name
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        key, sizes = marker["key"], dict(marker["files"])
        if key != parts_of(entry, source).key:
            return set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError, CatalogueError):
        return set()
    return {folder / name for name, size in sizes.items() if _size(folder / name) == size}


def is_built(entry: ModelEntry, source: BuiltSource) -> bool:
    """Whether every file of the model is there."""
    return {built_path(entry, q) for q in entry.quantizations} <= built_files(entry, source)


def publish(entry: ModelEntry, parts: Parts, made: Path) -> None:
    """Moves the files from the folder `made` into place; at no moment do old and new ones count together."""
    targets = [built_path(entry, quantization) for quantization in entry.quantizations]
    folder = models_dir() / entry.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).unlink(missing_ok=True)
    for target in targets:
        (made / target.name).replace(target)
    content = {"key": parts.key, "files": {target.name: target.stat().st_size for target in targets}}
    partial = made / MARKER
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / MARKER)


def scratch_dir(entry: ModelEntry) -> Path:
    """Where the model grows. What an interrupted build left there is removed by the next one, or with the model."""
    return models_dir() / f".build-{entry.name}"


def lock_path(entry: ModelEntry) -> Path:
    """Held by the process that builds the model."""
    return models_dir() / ".locks" / f"{entry.name}.lock"


def remove_scratch(entry: ModelEntry) -> list[tuple[Path, int]]:
    """Removes what an interrupted build left, unless a process is at it. The folder and its size."""
    from filelock import FileLock, Timeout

    folder = scratch_dir(entry)
    if not folder.is_dir():
        return []
    try:
        with FileLock(lock_path(entry), timeout=0):
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            shutil.rmtree(folder)
    except Timeout:
        return []
    return [(folder, size)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
