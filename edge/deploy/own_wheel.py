"""Wheels of what is installed here: this program, llama.cpp as it was compiled; and the files that travel along."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from importlib import metadata
from pathlib import Path

from edge.deploy.errors import DeployError

_ROOM = Path(__file__).parent
# What an installer writes beside a wheel's own files.
_INSTALLERS = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}
_BOARD_FILES = ("*.sh", "*.service", "*.conf", "*.cmake", "environment")


def checkout() -> Path | None:
    """The source tree that this program runs from, if it does."""
    root = _ROOM.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "jetson").is_dir() else None


def board_files() -> dict[str, Path]:
    """The install script and what it needs, by the name in a bundle."""
    root = checkout()
    folder = root / "jetson" if root else _ROOM / "jetson"
    files = {path.name: path for pattern in _BOARD_FILES for path in sorted(folder.glob(pattern))}
    if "install.sh" not in files:
        raise DeployError(
            f"{folder} holds no install.sh; install smoltools-edge from its wheel or use its checkout"
        )
    guide = folder / "README.md"
    return files | ({"GUIDE.md": guide} if guide.is_file() else {})


def constraints_file() -> Path:
    """The versions that were tested together."""
    root = checkout()
    return root / "constraints.txt" if root else _ROOM / "constraints.txt"


def repack(package: str, folder: Path) -> Path:
    """A wheel made of an installed package's files. Raises DeployError for one that is not installed from a wheel."""
    try:
        found = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise DeployError(f"{package} is not installed here") from None
    tags = re.findall(r"^Tag: (\S+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    files = [file for file in found.files or () if _belongs(str(file))]
    if not tags or len(files) < 2 or any(str(file).endswith(".pth") for file in files):
        raise DeployError(f"{package} is not installed from a wheel, so none can be made of it")
    name = re.sub(r"[-_.]+", "_", found.metadata["Name"])
    target = folder / f"{name}-{found.version}-{tags[0]}.whl"
    _zip(found, files, target)
    return target


def _belongs(path: str) -> bool:
    is_installers = ".dist-info/" in path and path.rpartition("/")[2] in _INSTALLERS
    # Scripts lie outside (../../bin) and are made anew from the entry points; compiled files from the source.
    return not path.startswith("..") and "__pycache__" not in path and not is_installers


def _zip(found: metadata.Distribution, files: list[metadata.PackagePath], target: Path) -> None:
    rows = []
    record = next(str(file).partition("/")[0] for file in files if ".dist-info/" in str(file)) + "/RECORD"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in files:
            content = Path(str(found.locate_file(file))).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append((str(file), f"sha256={digest}", len(content)))
            archive.writestr(str(file), content)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        archive.writestr(record, text.getvalue())
