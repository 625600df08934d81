"""A folder of wheels from which a board installs this program without a package index. pip does the fetching."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.deploy.errors import DeployError
from edge.deploy.own_wheel import checkout, constraints_file, repack

_LLAMA = "llama-cpp-python"
_OLDEST_GLIBC = 17  # manylinux_2_17, which is manylinux2014
_JETPACK = "; JetPack 6 has Python 3.10, and Ubuntu's universe the package python3.11"
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@dataclass(frozen=True, slots=True)
class Board:
    """What wheels are for. is_this: a machine of this very kind, so what is compiled here runs there."""

    machine: str
    glibc: str
    python: str
    cuda: bool = False
    is_this: bool = False

    def pip_options(self) -> list[str]:
        """pip's description of an interpreter that is not here."""
        newest = int(self.glibc.partition(".")[2])
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(_OLDEST_GLIBC, newest + 1)]
        tags += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        version = self.python.replace(".", "")
        return [
            "--only-binary=:all:", "--implementation", "cp", "--python-version", self.python,
            "--abi", f"cp{version}", "--abi", "abi3", "--abi", "none", *(f"--platform={tag}" for tag in tags),
        ]  # fmt: skip


def this_glibc() -> str:
    """The C library's version of this machine."""
    version = platform.libc_ver()[1]
    return version if re.fullmatch(r"2\.\d{2}", version) else "2.35"


def fill(folder: Path, board: Board, compiled: Path | None, tell: Callable[[str], None]) -> list[str]:
    """Puts everything there that can be had; what cannot, a sentence each. Raises DeployError when pip fails.

    compiled: a folder that may hold a wheel of llama.cpp for the board.
    """
    tell("packing smoltools-edge")
    own = _own_wheel(folder)
    needs = [need for need in _requirements(own, "server") if not need.startswith(_LLAMA)]
    missing, llama_needs = _llama(folder, board, compiled, tell)
    tell(f"fetching packages for Python {board.python} on {board.machine}")
    _download(folder, [*needs, *llama_needs, "pip"], board)
    return missing


def _own_wheel(folder: Path) -> Path:
    root = checkout()
    if root is None:
        return repack("smoltools-edge", folder)
    _pip(["wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(root)])
    return next(folder.glob("smoltools_edge-*.whl"))


def _requirements(wheel: Path, extra: str = "") -> list[str]:
    """A wheel's needs and those of an extra; markers of other kinds are dropped."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    found = []
    for line in re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE):
        need, _, marker = line.partition(";")
        if "extra" not in marker or re.search(rf"extra == ['\"]{extra}['\"]", marker):
            found.append(need.strip())
    return found


def _llama(
    folder: Path, board: Board, compiled: Path | None, tell: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """llama.cpp, compiled if that is possible, else its source: what is missing, and what else it needs."""
    ready = sorted(compiled.glob(f"llama_cpp_python-*linux*_{board.machine}.whl")) if compiled else []
    if compiled and not ready:
        raise DeployError(f"{compiled} holds no wheel of {_LLAMA} for {board.machine}")
    if ready:
        target = folder / ready[-1].name
        target.write_bytes(ready[-1].read_bytes())
        return [], _requirements(target)
    if board.is_this:
        tell("packing llama.cpp as it is compiled here")
        return [], _requirements(repack(_LLAMA, folder))
    tell("fetching the source of llama.cpp")
    pinned = re.search(rf"^{_LLAMA}==\S+", constraints_file().read_text(encoding="utf-8"), re.MULTILINE)
    _pip(["download", "--quiet", "--no-deps", f"--no-binary={_LLAMA}", "--dest", str(folder),
          pinned[0] if pinned else _LLAMA])  # fmt: skip
    source = next(folder.glob("llama_cpp_python-*.tar.gz"))
    return _not_compiled(board), [
        *_build_needs(source),
        "cmake>=3.21",
        "ninja>=1.5",
        *_needs_of_source(source),
    ]


def _not_compiled(board: Board) -> list[str]:
    here = platform.machine()
    why = (
        f"this machine is {here} and the board {board.machine}"
        if here != board.machine
        else "this machine is of another kind than the board"
    )
    sentences = [
        f"a compiled llama.cpp: {why}; its source is here, and install.sh compiles it on the board",
        "a C and C++ compiler: the board needs the Debian packages build-essential, cmake and ninja-build already",
        f"Python {board.python} and libgomp1: the board needs them already{_JETPACK if board.cuda else ''}",
    ]
    if board.cuda:
        sentences.append("CUDA's compiler: the board needs nvcc, which nvidia-jetpack brings")
    return sentences


def _toml_of(source: Path) -> dict[str, dict[str, list[str]]]:
    with tarfile.open(source) as archive:
        member = archive.extractfile(f"{source.name.removesuffix('.tar.gz')}/pyproject.toml")
        assert member is not None
        return tomllib.loads(member.read().decode())


def _build_needs(source: Path) -> list[str]:
    return _toml_of(source)["build-system"]["requires"]


def _needs_of_source(source: Path) -> list[str]:
    return _toml_of(source)["project"]["dependencies"]


def _download(folder: Path, needs: Sequence[str], board: Board) -> None:
    _pip(["download", "--quiet", "--dest", str(folder), "--constraint", str(constraints_file()),
          *board.pip_options(), *needs])  # fmt: skip


def _pip(arguments: Sequence[str]) -> None:
    result = subprocess.run([*_PIP, *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        raise DeployError(f"pip {arguments[0]} failed: {errors[-1] if errors else 'no reason given'}")
