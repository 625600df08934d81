"""A file's SHA-256, computed once and remembered as long as the file is the same one by what the system says of it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


class FileDigest:
    """The digest of the file as it was when this was made; None of one that has changed since."""

    def __init__(self, path: Path, folder: Path) -> None:
        """folder: where digests are remembered."""
        self._path, self._folder = path, folder
        self._identity = _identity(path)
        self._digest: str | None = None

    def known(self) -> str | None:
        """The digest if it was computed before, by any process; does not read the file."""
        if self._digest is None:
            try:
                text = self._note.read_text("ascii", "replace")
            except OSError:
                return None
            if len(text) == 64 and set(text) <= set("0123456789abcdef"):
                self._digest = text
        return self._digest

    def compute(self) -> str | None:
        """The digest; reads the file if it is not known: 1 s for 1 GB, or more."""
        if self.known() is not None:
            return self._digest
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _identity(self._path) != self._identity:
            return None
        self._remember(digest)
        self._digest = digest
        return digest

    @property
    def _note(self) -> Path:
        return self._folder / hashlib.sha256(repr(self._identity).encode()).hexdigest()[:32]

    def _remember(self, digest: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(descriptor, "w") as file:
            file.write(digest)
        Path(name).replace(self._note)


def _identity(path: Path) -> tuple[object, ...]:
    """What changes when the file does: also the time of the last change of its inode, which nobody can set back."""
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev
