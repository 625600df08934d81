"""One process at a time for a piece of work; the others wait and then find it done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(path: Path, doing: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock file at `path`, which is made; waits for it after a line that another process is `doing`."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, mode=0o664)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"another process is {doing}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
