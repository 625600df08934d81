"""One archive with which a board gets the program, a model and the service without a network.

It unpacks to one folder: install.sh and its files, `wheels/`, `models/`, `bundle.json`, and `SHA256SUMS` over all of
them, which install.sh checks before it does anything. What cannot be included is told and listed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from edge.deploy.errors import DeployError
from edge.deploy.own_wheel import board_files
from edge.deploy.wheelhouse import Board, fill
from edge.engine.intake import examine_chat

FORMAT = 1
SUMS, DOCUMENT = "SHA256SUMS", "bundle.json"
_WHEELS_BYTES = 300_000_000  # some more than a wheelhouse has
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRequest:
    """What is wanted. model: a file; None, and the bundle has none. compiled: a folder with a wheel of llama.cpp."""

    target: str
    board: Board
    model: Path | None
    out: Path
    compiled: Path | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was made. missing: what could not be included, a sentence each."""

    path: Path
    size_bytes: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    size_bytes: int
    sha256: str


def make_bundle(request: BundleRequest, tell: Callable[[str], None]) -> Bundle:
    """Makes the archive, reads it again, compares, and gives it its name then. Raises DeployError, ModelError."""
    name = f"smoltools-edge-bundle-{request.target}"
    path = request.out / f"{name}.tar"
    if request.model is not None:
        examine_chat(request.model)
    _check_room(request)
    part = path.with_name(f".{path.name}.part")
    try:
        with tempfile.TemporaryDirectory(dir=request.out, prefix=".bundle-") as scratch:
            wheels = Path(scratch)
            missing = fill(wheels, request.board, request.compiled, tell)
            if request.model is None:
                missing.append("a model: install.sh --model FILE takes one that is on the board")
            files = _contents(request, wheels)
            tell(f"writing {path}")
            sums = _write(part, name, files, _document(request, missing))
        verify_bundle(part, sums)
        part.replace(path)
    except OSError as exc:
        raise DeployError(f"{path} cannot be written: {exc.strerror or exc}") from None
    finally:
        part.unlink(missing_ok=True)
    return Bundle(path, path.stat().st_size, tuple(missing))


def _check_room(request: BundleRequest) -> None:
    try:
        request.out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(request.out).free
    except OSError as exc:
        raise DeployError(f"{request.out} cannot be used: {exc.strerror}") from None
    needed = 2 * _WHEELS_BYTES + (request.model.stat().st_size if request.model else 0)
    if free < needed:
        raise DeployError(
            f"{request.out} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed; give --out"
        )


def _contents(request: BundleRequest, wheels: Path) -> dict[str, Path]:
    files = dict(board_files())
    files |= {f"wheels/{path.name}": path for path in sorted(wheels.iterdir())}
    if request.model is not None:
        files[f"models/{request.model.name}"] = request.model.resolve()
    return files


def _document(request: BundleRequest, missing: list[str]) -> dict[str, object]:
    return {
        "format": FORMAT,
        "target": request.target,
        "model": request.model.name if request.model else None,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": request.board.machine,
        "python": request.board.python,
        "missing": missing,
    }


def _write(part: Path, folder: str, files: dict[str, Path], document: dict[str, object]) -> dict[str, str]:
    """The archive; sums by the name in it."""
    entries: dict[str, _Entry] = {}
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in files.items():
            entries[name] = _add_file(archive, f"{folder}/{name}", path)
        listed = [{"path": n, "size_bytes": e.size_bytes, "sha256": e.sha256} for n, e in entries.items()]
        text = json.dumps(document | {"files": listed}, indent=2).encode() + b"\n"
        _add_bytes(archive, f"{folder}/{DOCUMENT}", text)
        sums = {name: entry.sha256 for name, entry in entries.items()}
        sums[DOCUMENT] = hashlib.sha256(text).hexdigest()
        lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
        _add_bytes(archive, f"{folder}/{SUMS}", lines.encode())
    return sums


def _info(name: str, size: int, *, is_program: bool = False) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = (
        size,
        0o755 if is_program else 0o644,
        int(datetime.now(UTC).timestamp()),
    )
    info.uname = info.gname = "root"
    return info


class _Digesting(io.RawIOBase):
    """A file whose bytes are summed as they are read."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> _Entry:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        reader = _Digesting(file)
        archive.addfile(_info(name, size, is_program=name.endswith(".sh")), reader)
    return _Entry(size, reader.digest.hexdigest())


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_info(name, len(content)), io.BytesIO(content))


def verify_bundle(path: Path, expected: dict[str, str] | None = None) -> int:
    """How many files the archive holds, all as its own SHA256SUMS lists them. Raises DeployError for any other.

    expected: what was meant to be written.
    """
    found: dict[str, str] = {}
    listed = ""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member)
                name = member.name.partition("/")[2]
                if content is None or not name:
                    raise DeployError(f"{path} holds {member.name}, which is no file of a bundle")
                if name == SUMS:
                    listed = content.read().decode("utf-8", "replace")
                else:
                    found[name] = _digest(content)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as exc:
        raise DeployError(f"{path} cannot be read: {exc.strerror}") from None
    except (OSError, tarfile.TarError, EOFError) as exc:
        reason = str(exc).partition("\n")[0].rstrip(":")  # tarfile lists what it tried, a line each
        raise DeployError(f"{path} is damaged or not a tar file: {reason}; copy or make it again") from None
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in listed.splitlines())}
    for name in sorted({*sums, *found, *(expected or {})}):
        if not sums.get(name) == found.get(name) == (expected or sums).get(name):
            raise DeployError(f"{path}: {name} is not what {SUMS} lists; copy or make it again")
    if not sums:
        raise DeployError(f"{path} holds no {SUMS}: it is not a bundle")
    return len(sums)


def _digest(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := content.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
