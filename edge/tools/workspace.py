"""The folder that file tools are confined to. Nothing outside it is opened, whatever the path says or changes into.

Each step of a path is opened below the folder before it, and no step may be a symbolic link: neither `..` nor a link
nor a folder that is swapped for a link meanwhile leads out.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ToolsError
from edge.tools.executable import Arguments, ToolFailure
from edge.tools.text import shown_exactly

MOUNT = "/workspace"  # where the sandbox shows the workspace; models use that path with file tools too
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder."""

    name: str
    kind: str  # file, directory, link, other
    size_bytes: int


class Workspace:
    """A folder. Raises ToolsError if it is none."""

    def __init__(self, folder: Path) -> None:
        try:
            self.folder = folder.expanduser().resolve(strict=True)
            self._root_fd = os.open(self.folder, _DIRECTORY)
        except OSError as exc:
            raise ToolsError(f"the workspace {folder} cannot be opened: {exc.strerror}") from None

    def close(self) -> None:
        """Gives the folder back."""
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def parts(self, path: str) -> tuple[str, ...]:
        """The path's steps below the workspace. Raises ToolFailure for one that leads out."""
        if "\0" in path:
            raise ToolFailure(f"the path {shown_exactly(path)} holds a NUL character")
        for prefix in (MOUNT, str(self.folder)):
            if path == prefix or path.startswith(prefix + "/"):
                path = path[len(prefix) :].lstrip("/")
                break
        if path.startswith(("/", "~")):
            raise ToolFailure(f"{shown_exactly(path)} is outside the workspace; give a path relative to it")
        steps: list[str] = []
        for step in path.split("/"):
            if step == "..":
                if not steps:
                    raise ToolFailure(f"{shown_exactly(path)} is outside the workspace")
                steps.pop()
            elif step not in ("", "."):
                steps.append(step)
        return tuple(steps)

    def normalize(self, arguments: Arguments, *names: str) -> Arguments:
        """The arguments with the named paths as the policy compares them; a path that leads out stays as it is."""
        changed = dict(arguments)
        for name in names:
            value = arguments.get(name)
            if isinstance(value, str):
                try:
                    changed[name] = "/".join(self.parts(value)) or "."
                except ToolFailure:
                    continue
        return changed

    @contextmanager
    def open_file(self, path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """A descriptor of a regular file."""
        with self._parent(path) as (parent, name):
            # Non-blocking: opening a FIFO that nobody writes to would wait for ever.
            fd = _open(path, name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, parent)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ToolFailure(f"{shown_exactly(path)} is not a regular file")
            yield fd
        finally:
            os.close(fd)

    def replace_file(self, path: str, data: bytes) -> None:
        """Writes a file whole: it is there entirely, or as it was before."""
        with self._parent(path, make=True) as (parent, name):
            self._refuse_odd_target(path, name, parent)
            temporary = f".{name[:100]}.{secrets.token_hex(4)}.part"
            fd = _open(path, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, parent)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except OSError as exc:
                os.unlink(temporary, dir_fd=parent)
                raise ToolFailure(f"{shown_exactly(path)} cannot be written: {exc.strerror}") from None

    def append_file(self, path: str, data: bytes) -> None:
        """Writes behind the end of a file, which is made if it is not there."""
        with self._parent(path, make=True):
            pass
        with (
            self.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as fd,
            os.fdopen(os.dup(fd), "ab") as file,
        ):
            file.write(data)

    def entries(self, path: str, limit: int) -> tuple[list[Entry], int]:
        """At most limit names in a folder, sorted, and how many there are."""
        with self._directory(path, self.parts(path)) as fd:
            names = sorted(os.listdir(fd))  # noqa: PTH208 - below a descriptor
            return [_entry(name, fd) for name in names[:limit]], len(names)

    @contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        steps = self.parts(path)
        if not steps:
            raise ToolFailure(f"{shown_exactly(path)} is the workspace itself, not a file")
        with self._directory(path, steps[:-1], make=make) as fd:
            yield fd, steps[-1]

    @contextmanager
    def _directory(self, path: str, steps: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        fd = os.dup(self._root_fd)
        try:
            for step in steps:
                if make:
                    _make_directory(path, step, fd)
                below = _open(path, step, _DIRECTORY, fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _refuse_odd_target(self, path: str, name: str, parent: int) -> None:
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        except OSError as exc:
            raise _failure(path, exc) from None
        if not stat.S_ISREG(mode):
            raise ToolFailure(f"{shown_exactly(path)} is a {_kind(mode)}, not a file")


def _make_directory(path: str, name: str, parent: int) -> None:
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        pass
    except OSError as exc:
        raise _failure(path, exc) from None


def _open(path: str, name: str, flags: int, parent: int) -> int:
    try:
        return os.open(name, flags, 0o666, dir_fd=parent)
    except OSError as exc:
        raise _failure(path, exc) from None


def _failure(path: str, exc: OSError) -> ToolFailure:
    shown = shown_exactly(path)
    if exc.errno == errno.ELOOP:
        return ToolFailure(f"{shown} is a symbolic link; links are not followed")
    if exc.errno == errno.ENOTDIR:
        return ToolFailure(f"{shown} leads through a file or a symbolic link; links are not followed")
    if exc.errno == errno.ENOENT:
        return ToolFailure(f"there is no {shown} in the workspace")
    return ToolFailure(f"{shown} cannot be opened: {exc.strerror}")


def _entry(name: str, parent: int) -> Entry:
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:  # gone meanwhile
        return Entry(name, "other", 0)
    return Entry(name, _kind(found.st_mode), found.st_size)


def _kind(mode: int) -> str:
    for test, kind in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link")):
        if test(mode):
            return kind
    return "other"
