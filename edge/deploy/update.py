"""Switches the service to another model, and back when it is not well with it.

The link `models/current` is what the service loads; it is replaced in one step, so that a start finds the old model or
the new one. `models/previous` leads to the one before. Nothing is fetched or tried out here, see `placing`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.deploy.errors import DeployError
from edge.deploy.probe import check_call, check_model, wait_until_healthy
from edge.deploy.service import Service
from edge.deploy.settings import Endpoint
from edge.errors import EdgeError

CURRENT, PREVIOUS, UNFINISHED = "current", "previous", ".update-unfinished"


@dataclass(frozen=True, slots=True)
class MemoryConf:
    """The drop-in with the unit's memory limit. limit_bytes: asked while no model is loaded."""

    path: Path
    environment_file: Path
    limit_bytes: Callable[[Path], int]

    def text(self, link: Path) -> str:
        """The limit for the model that the link leads to; the first line is what the installer compares."""
        try:
            environment = self.environment_file.read_bytes()
        except OSError:
            environment = b""
        digest = hashlib.sha256(environment).hexdigest()[:12]
        return (
            f"# for {link.readlink()}, environment {digest}\n"
            "# From the plan of `smoltools-edge profile`: the model, the headroom, the program.\n"
            f"[Service]\nMemoryMax={self.limit_bytes(link)}\n"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """What a switch works with. memory: None where nothing limits the service."""

    models: Path
    service: Service
    endpoint: Endpoint
    timeout_s: float
    memory: MemoryConf | None = None
    tell: Callable[[str], None] = lambda line: None

    def to(self, new: Path) -> None:
        """Serves `new` from now on. Raises DeployError when it is not well; the old one serves then, or it says so."""
        link = self.models / CURRENT
        old = self.current()
        point(self.models / PREVIOUS, old)
        kept = self.memory.path.read_bytes() if self.memory and self.memory.path.exists() else None
        _write(self.models / UNFINISHED, f"{old}\n".encode())
        try:
            self.service.restart(lambda: self._change(link, new, kept))
            self._check(new)
        except BaseException as exc:  # an interrupted update goes back, too
            self._go_back(link, old, kept, exc)
            raise
        (self.models / UNFINISHED).unlink()

    def current(self) -> Path:
        """What the link leads to. Raises DeployError where there is none."""
        return read_link(self.models / CURRENT)

    def _change(self, link: Path, new: Path, kept: bytes | None) -> None:
        point(link, new)
        if self.memory is not None and kept is not None:
            _write(self.memory.path, self.memory.text(link).encode())

    def _check(self, new: Path) -> None:
        wait_until_healthy(self.endpoint, self.timeout_s, self.service.why_dead)
        check_model(self.endpoint, new.stat().st_size)
        self.tell("the service is healthy; trying a tool call through it")
        check_call(self.endpoint)

    def _go_back(self, link: Path, old: Path, kept: bytes | None, cause: BaseException) -> None:
        reason = str(cause) if isinstance(cause, (EdgeError, OSError)) else "it was interrupted"
        self.tell(f"going back to {old.name}")

        def undo() -> None:
            point(link, old)
            if self.memory is not None and kept is not None:
                _write(self.memory.path, kept)

        try:
            self.service.restart(undo)
            wait_until_healthy(self.endpoint, self.timeout_s, self.service.why_dead)
        except (DeployError, OSError) as exc:
            raise DeployError(
                f"the update failed ({reason}), {link} leads to {old.name} again, and the service is not well: {exc}"
            ) from cause
        (self.models / UNFINISHED).unlink(missing_ok=True)
        raise DeployError(
            f"the update failed and was taken back: {reason}; {old.name} serves again"
        ) from cause


def read_link(link: Path) -> Path:
    """The file that a link leads to. Raises DeployError."""
    try:
        target = link.parent / link.readlink()
    except OSError:
        raise DeployError(
            f"{link} is not a link to a model file; install the service with jetson/install.sh first"
        ) from None
    if not target.is_file():
        raise DeployError(
            f"{link} leads to {target}, which is not there; pull a model and set the link to it"
        )
    return target


def point(link: Path, target: Path) -> None:
    """Makes the link lead to the target, in one step that a loss of power does not split."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    _own_as(new, link.parent)
    new.replace(link)
    _sync(link.parent)


def _write(path: Path, content: bytes) -> None:
    """Replaces the file in one step. The folder may be another user's: what lies at our own name is not followed."""
    part = path.with_name(f".{path.name}.new")
    part.unlink(missing_ok=True)
    with part.open("xb") as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o644)
    _own_as(part, path.parent)
    part.replace(path)
    _sync(path.parent)


def _own_as(path: Path, folder: Path) -> None:
    if os.geteuid() == 0:
        stat = folder.stat()
        os.chown(path, stat.st_uid, stat.st_gid, follow_symlinks=False)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
