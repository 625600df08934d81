"""GGUF files in the hub's own cache: where they lie, what is there, and putting a fetched one in its place.

The layout is huggingface_hub's (`blobs`, `snapshots`, `refs` in one folder a repository), so that its own tools see
these files and this program sees theirs. Nothing is requested from the hub here.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from edge.errors import CatalogueError
from edge.models.files import GgufFile, model_files

_PREFIX = "models--"
_SAFE_NAME = re.compile(r"[\w.-]{1,128}")


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A GGUF file in the cache, under the name that its repository gives it."""

    repo: str
    file: GgufFile
    path: Path


def cache_dir() -> Path:
    """The cache's folder, from HF_HUB_CACHE or HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def repo_dir(repo: str) -> Path:
    """The folder of one repository; the spelling that is there wins, the hub does not tell upper from lower case."""
    name = _PREFIX + repo.replace("/", "--")
    exact = cache_dir() / name
    if not exact.is_dir() and cache_dir().is_dir():
        for folder in sorted(cache_dir().iterdir()):
            if folder.name.lower() == name.lower():
                return folder
    return exact


def cached_repos() -> list[str]:
    """The repositories that have a folder in the cache."""
    if not cache_dir().is_dir():
        return []
    names = (
        p.name.removeprefix(_PREFIX) for p in sorted(cache_dir().iterdir()) if p.name.startswith(_PREFIX)
    )
    return [name.replace("--", "/", 1) for name in names if "--" in name]


def cached_files(repo: str) -> list[CachedFile]:
    """The models of a repository that are in the cache: of each name the one of the newest snapshot."""
    found: dict[str, Path] = {}
    for snapshot in _snapshots(repo_dir(repo)):
        for path in sorted(snapshot.rglob("*")):
            name = path.relative_to(snapshot).as_posix()
            if (
                name.lower().endswith(".gguf") and name not in found and path.is_file()
            ):  # a broken link is no file
                found[name] = path
    files = model_files([(name, path.stat().st_size) for name, path in found.items()])
    return [CachedFile(repo, file, found[file.path]) for file in files]


def _snapshots(folder: Path) -> list[Path]:
    """The snapshot that `main` names first, then the others by age."""
    ref = folder / "refs" / "main"
    main = ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""
    snapshots = [path for path in (folder / "snapshots").glob("*") if path.is_dir()]
    return sorted(snapshots, key=lambda path: (path.name != main, -path.stat().st_mtime))


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Where one file of one commit goes. etag: the hub's name for its content."""

    folder: Path
    commit: str
    path: str
    etag: str

    def __post_init__(self) -> None:
        """The three names come from a server and become parts of paths."""
        steps = self.path.split("/")
        if any(step in ("", ".", "..") or "\\" in step or "\0" in step for step in steps):
            raise CatalogueError(
                f"the hub names a file {self.path[:80]!a}, which is not a path inside a repository"
            )
        for name in (self.commit, self.etag):
            if not _SAFE_NAME.fullmatch(name) or name in (".", ".."):
                raise CatalogueError(
                    f"the hub answers with the identifier {name[:80]!a}, which cannot name a file"
                )

    @property
    def blob(self) -> Path:
        """The content."""
        return self.folder / "blobs" / self.etag

    @property
    def partial(self) -> Path:
        """The content as far as it has come."""
        return self.folder / "blobs" / f"{self.etag}.incomplete"

    @property
    def lock(self) -> Path:
        """What huggingface_hub locks for this content, too."""
        return self.folder.parent / ".locks" / self.folder.name / f"{self.etag}.lock"

    @property
    def pointer(self) -> Path:
        """The path to use."""
        return self.folder / "snapshots" / self.commit / self.path

    def link(self) -> Path:
        """Makes the pointer to the content that has come, and `main` point to its commit; returns the pointer."""
        ref = self.folder / "refs" / "main"
        if not self.pointer.exists():
            self.pointer.parent.mkdir(parents=True, exist_ok=True)
            self.pointer.unlink(missing_ok=True)  # a link whose content was removed
            _link_or_move(self.blob, self.pointer)
        if not ref.is_file() or ref.read_text(encoding="utf-8") != self.commit:
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(self.commit, encoding="utf-8")
        return self.pointer


def _link_or_move(blob: Path, pointer: Path) -> None:
    from huggingface_hub import constants

    if not getattr(constants, "HF_HUB_DISABLE_SYMLINKS", False):
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except FileExistsError:
            return  # another process was quicker
        except OSError:
            pass  # exFAT and the like: huggingface_hub puts the file itself there, too
        else:
            return
    blob.replace(pointer)


def remove_cached(pointer: Path) -> int:
    """Takes a file out of the cache, in all its versions and under all names that its contents have. Bytes freed.

    A repository's folder goes when no file is left in it.
    """
    folder = next(parent for parent in pointer.parents if parent.name.startswith(_PREFIX))
    name = Path(*pointer.relative_to(folder / "snapshots").parts[1:])
    versions = [path for path in (folder / "snapshots").glob(f"*/{glob.escape(str(name))}") if path.is_file()]
    freed = sum(_remove_content(folder, path) for path in versions)
    _remove_if_empty(folder)
    return freed


def _remove_content(folder: Path, pointer: Path) -> int:
    """Unlinks a content and everything in the snapshots that leads to it.

    A content that repositories share (huggingface_hub's store of Xet files) stays; this repository's link to it goes.
    """
    blob, size = pointer.resolve(), pointer.stat().st_size
    linked = Path(os.path.normpath(pointer.parent / pointer.readlink())) if pointer.is_symlink() else pointer
    for path in [path for path in (folder / "snapshots").rglob("*") if not path.is_dir()]:
        if path == pointer or (path.is_symlink() and path.resolve() == blob):
            path.unlink()
    if linked.is_relative_to(folder):  # a user may have linked a file of their own into a snapshot
        linked.unlink(missing_ok=True)
    return 0 if blob.exists() else size


def remove_partials(repo: str) -> list[tuple[Path, int]]:
    """Removes what broken downloads left of a repository, unless a process is at it. The files and their sizes."""
    from filelock import FileLock, Timeout

    folder, removed = repo_dir(repo), []
    for path in sorted((folder / "blobs").glob("*.incomplete")):
        lock = folder.parent / ".locks" / folder.name / f"{path.name.partition('.')[0]}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                removed.append((path, path.stat().st_size))
                path.unlink()
        except Timeout:
            continue
    _remove_if_empty(folder)
    return removed


def _remove_if_empty(folder: Path) -> None:
    """Removes a repository's folder without content: the references alone are of no use."""
    if folder.is_dir() and not any(
        path.is_file() for part in ("blobs", "snapshots") for path in (folder / part).rglob("*")
    ):
        shutil.rmtree(folder)
        shutil.rmtree(folder.parent / ".locks" / folder.name, ignore_errors=True)
