"""What is remembered about a model file between runs: files in the user's cache, named after the very file.

A file that was replaced, changed or moved has another name there, and so has another version of llama.cpp.
"""

from __future__ import annotations

import hashlib
import os
from importlib import metadata
from pathlib import Path

_MOST_FILES = 300  # of one kind


def memory_of(path: Path, kind: str, suffix: str = "") -> Path:
    """Where something of this kind about the file at `path` is kept. Raises OSError if there is no such file."""
    root = os.environ.get("SMOLTOOLS_EDGE_CACHE")
    if root is None:
        import platformdirs

        root = platformdirs.user_cache_dir("smoltools-edge")
    stat = path.stat()
    what = (
        str(path.resolve()),
        stat.st_size,
        stat.st_mtime_ns,
        stat.st_ino,
        metadata.version("llama-cpp-python"),
    )
    return Path(root) / kind / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}{suffix}"


def remember(place: Path, text: str = "") -> None:
    """Writes the text there, whole or not at all; a read-only cache costs doing the work again, nothing else."""
    part = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(place)
        _forget_oldest(place.parent)
    except OSError:
        pass


def _forget_oldest(folder: Path) -> None:
    """Keeps the folder small: files that are gone are never asked for again."""
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) > _MOST_FILES:
        for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)[: len(files) // 2]:
            path.unlink(missing_ok=True)
