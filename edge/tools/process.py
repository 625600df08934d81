"""Runs a program and ends it, with all its children, when it goes too far. No isolation: see `sandbox`."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from edge.tools.executable import CallContext, ToolFailure

_POLL_S = 0.05
# New threads anywhere on the machine for each process that is allowed: more can only be a fork bomb.
_MANY_PER_PROCESS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What a program and its children may use together. disk_mb: by which free space may shrink."""

    time_s: float = 30.0
    memory_mb: int = 512
    disk_mb: int = 512
    n_processes: int = 64
    max_output_bytes: int = 200_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did. killed: why it was ended, None when it ended itself."""

    exit_code: int
    output: str
    killed: str | None
    cut: bool


def run_process(
    argv: Sequence[str],
    limits: ProcessLimits,
    context: CallContext,
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: bytes = b"",
    disk: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Outcome:
    """Runs a command with this environment alone and no terminal; standard error is part of the output."""
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        try:
            process = subprocess.Popen(
                list(argv), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(env), cwd=cwd,
                pass_fds=pass_fds, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc
            raise ToolFailure(f"{argv[0]} cannot be started: {why}") from None
    return _Watch(process, disk, limits, context).until_end()


class _Watch:
    """Reads the output of a running program and ends it when it goes too far."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        disk: Path | None,
        limits: ProcessLimits,
        context: CallContext,
    ) -> None:
        assert process.stdout is not None
        self._process, self._disk, self._limits, self._context = process, disk, limits, context
        self._pipe = process.stdout
        self._output = bytearray()
        self._cut = False
        self._end = time.monotonic() + limits.time_s
        self._free_at_start = self._free_bytes()
        self._n_tasks_at_start = _n_tasks()

    def until_end(self) -> Outcome:
        killed: str | None = None
        try:
            killed = self._watch()
        finally:
            # Its children too. In a sandbox the kernel ends all that is in the namespace with its first process.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            self._pipe.close()
        text = self._output.decode("utf-8", "replace")
        return Outcome(self._process.returncode, text, killed, self._cut)

    def _watch(self) -> str | None:
        os.set_blocking(self._pipe.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while True:
                if selector.select(_POLL_S) and not self._read():
                    return self._wait_for_exit()
                if reason := self._excess():
                    return reason
                if self._process.poll() is not None:
                    self._read()  # a child that lives on holds the pipe open
                    return None

    def _read(self) -> bool:
        try:
            data = os.read(self._pipe.fileno(), 65536)
        except BlockingIOError:
            return True
        room = self._limits.max_output_bytes - len(self._output)
        self._output += data[:room]
        self._cut |= len(data) > room
        return bool(data)

    def _wait_for_exit(self) -> str | None:
        """The output was closed; the program may go on without it."""
        while self._process.poll() is None:
            if reason := self._excess():
                return reason
            time.sleep(_POLL_S)
        return None

    def _excess(self) -> str | None:
        limits = self._limits
        if self._context.cancelled:
            return "cancelled"
        if time.monotonic() > self._end:
            return f"it ran longer than {limits.time_s:g} s"
        # Counting a family takes long when it has grown to thousands, and it grows meanwhile.
        if _n_tasks() - self._n_tasks_at_start > _MANY_PER_PROCESS * limits.n_processes:
            return f"it started more than {limits.n_processes} processes"
        n_bytes, n_processes = _usage(self._process.pid)
        if n_bytes > limits.memory_mb << 20:
            return f"it used more than {limits.memory_mb} MB of memory"
        if n_processes > limits.n_processes:
            return f"it started more than {limits.n_processes} processes"
        if self._free_at_start - self._free_bytes() > limits.disk_mb << 20:
            return f"it wrote more than {limits.disk_mb} MB"
        return None

    def _free_bytes(self) -> int:
        if self._disk is None:
            return 0
        found = os.statvfs(self._disk)
        return found.f_bavail * found.f_frsize


def _n_tasks() -> int:
    """Threads on this machine; 0 where the kernel does not tell."""
    try:
        return int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return 0


def _usage(pid: int) -> tuple[int, int]:
    """Resident bytes and number of a process and its descendants."""
    n_bytes = 0
    try:
        first = psutil.Process(pid)
        family = [first, *first.children(recursive=True)]
    except psutil.Error:
        return 0, 0
    for process in family:
        with suppress(psutil.Error):
            n_bytes += process.memory_info().rss
    return n_bytes, len(family)
