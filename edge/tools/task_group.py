"""A control group for one run, so that the kernel bounds its tasks and none of them is left behind.

Only where this process may make groups, which root mostly may and others mostly may not. It matters for root: the
kernel holds other users to `ulimit -u`, and root to nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_NUMBERS = count()
_END_WITHIN_S = 10.0
# A shell joins the group and becomes the command, so that no task of the command is ever outside.
_JOIN = 'echo $$ > "$0" && exec "$@"'


@contextmanager
def task_group(n_tasks: int) -> Iterator[list[str]]:
    """Yields what to write before a command so that it runs in a group of at most n_tasks tasks (threads count).

    Nothing where no group can be made. At the end, whatever still runs in the group is killed.
    """
    folder = _made(n_tasks)
    if folder is None:
        yield []
        return
    try:
        join = ["/bin/sh", "-c", _JOIN, str(folder / "cgroup.procs")]
        # A group can be made and yet be closed: who moves a process needs a right on the group above both.
        tried = subprocess.run([*join, "true"], stderr=subprocess.DEVNULL, check=False)
        yield join if tried.returncode == 0 else []
    finally:
        _end(folder)


def _made(n_tasks: int) -> Path | None:
    for parent in _parents():
        folder = parent / f"smoltools-edge-{os.getpid()}-{next(_NUMBERS)}"
        with suppress(OSError):
            folder.mkdir()
            try:
                (folder / "pids.max").write_text(str(n_tasks), encoding="ascii")
            except OSError:
                folder.rmdir()
                raise
            return folder
    return None


def _parents() -> Iterator[Path]:
    """Where a group could be made: v1 below the own group; v2 below it or, as it mostly holds processes, beside it."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if "pids" in controllers.split(","):
            yield _MOUNT / "pids" / own.lstrip("/")
        elif not controllers:
            folder = _MOUNT / own.lstrip("/")
            yield from (folder, folder.parent) if folder != _MOUNT else (folder,)


def _end(folder: Path) -> None:
    """Kills what is left and removes the group; gives up after some seconds."""
    until = time.monotonic() + _END_WITHIN_S
    while time.monotonic() < until:
        for pid in _pids(folder):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.01)


def _pids(folder: Path) -> list[int]:
    with suppress(OSError):
        # 0 stands for a process that cannot be seen from here.
        return [pid for text in (folder / "cgroup.procs").read_text().split() if (pid := int(text))]
    return []
