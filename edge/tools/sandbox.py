"""Runs programs in bubblewrap: own namespaces, no network, nothing of this machine but /usr (read) and the workspace.

Bounded: time, memory of all processes together, their number, the size of a file, the disk that fills up, the output.
No secrets: the environment is built anew. Not covered: kernel bugs (no seccomp filter is installed), and a workspace
filled with very many small files.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edge.tools.executable import CallContext, ToolFailure
from edge.tools.process import Outcome, ProcessLimits, run_process
from edge.tools.task_group import task_group
from edge.tools.workspace import MOUNT

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TMP_BYTES = 64 << 20
_TASKS_PER_PROCESS = 4  # threads count too
# Where programs look for shared libraries and alternatives; nothing personal.
_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime")
_ETC_NETWORK = ("resolv.conf", "hosts", "nsswitch.conf", "ssl", "ca-certificates", "pki")


_PROC_COVERED = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions(ProcessLimits):
    """Limits of one run. network: the machine's own network, local services included."""

    file_mb: int = 64
    network: bool = False
    write: bool = True  # the workspace can be changed


@lru_cache(maxsize=1)
def sandbox_problem() -> str | None:
    """Why programs cannot be run in a sandbox on this machine, or None. Tries it out once."""
    bwrap = shutil.which("bwrap", path=_PATH)
    if bwrap is None:
        return "bubblewrap is not installed (Debian: apt install bubblewrap)"
    try:
        tried = subprocess.run(
            [*_namespaces(bwrap, SandboxOptions()), "--", "/bin/true"],
            env={"PATH": _PATH}, capture_output=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"bubblewrap does not start: {exc}"
    if tried.returncode:
        said = tried.stderr.decode("utf-8", "replace").strip().splitlines()
        why = said[-1] if said else f"exit code {tried.returncode}"
        return f"bubblewrap does not work here: {why} (are user namespaces switched off?)"
    return None


def run_sandboxed(
    argv: Sequence[str],
    workspace: Path | None,
    options: SandboxOptions,
    context: CallContext,
    *,
    program: bytes | None = None,
) -> Outcome:
    """Runs a command; program, if given, is its file /run/program. Raises ToolFailure where there is no sandbox."""
    if problem := sandbox_problem():
        raise ToolFailure(f"programs are not run without a sandbox, and {problem}")
    bwrap = shutil.which("bwrap", path=_PATH)
    assert bwrap is not None
    command = _namespaces(bwrap, options)
    if workspace is not None:
        command += ["--bind" if options.write else "--ro-bind", str(workspace), MOUNT, "--chdir", MOUNT]
    with tempfile.TemporaryFile() as file:
        fds = [] if program is None else [file.fileno()]
        if program is not None:
            file.write(program)
            file.seek(0)
            command += ["--ro-bind-data", str(file.fileno()), "/run/program"]
        # Everything else is a memory disk that could be filled.
        command += ["--remount-ro", "/", "--", *_limited(argv, options)]
        with task_group(_TASKS_PER_PROCESS * options.n_processes) as join:
            # bwrap's own environment can be read inside, in /proc/1/environ.
            env = {"PATH": _PATH}
            return run_process([*join, *command], options, context, env=env, disk=workspace, pass_fds=fds)


def _namespaces(bwrap: str, options: SandboxOptions) -> list[str]:
    command = [
        bwrap, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", "--hostname", "sandbox",
        "--setenv", "PATH", _PATH, "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8",
        "--setenv", "TMPDIR", "/tmp", "--setenv", "PYTHONDONTWRITEBYTECODE", "1",
    ]  # fmt: skip
    if options.network:
        command.append("--share-net")
    for folder in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if Path(folder).is_symlink():
            command += ["--symlink", str(Path(folder).readlink()), folder]
        elif Path(folder).is_dir():
            command += ["--ro-bind", folder, folder]
    if (python := _python_home()) is not None:
        command += ["--ro-bind", python, python]
    for name in _ETC + (_ETC_NETWORK if options.network else ()):
        command += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    if "--disable-userns" in _features(
        bwrap
    ):  # from 0.8; the kernel's code for namespaces is out of reach then
        command.append("--disable-userns")
    command += ["--proc", "/proc", "--dev", "/dev"]
    # Whoever starts us as root owns the kernel's settings, inside too: bwrap covers them only where it finds the folder
    # itself writable, and /proc/sys is not although its files are.
    for name in _PROC_COVERED:
        command += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    if "--size" in _features(
        bwrap
    ):  # from 0.7; without it /dev/shm stays read-only and /tmp is bounded by file_mb
        command += ["--size", str(_TMP_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
        return [*command, "--size", str(_TMP_BYTES), "--tmpfs", "/tmp", "--dir", "/run"]
    return [*command, "--remount-ro", "/dev", "--tmpfs", "/tmp", "--dir", "/run"]


@lru_cache(maxsize=1)
def _features(bwrap: str) -> str:
    shown = subprocess.run(
        [bwrap, "--help"], env={"PATH": _PATH}, capture_output=True, timeout=10, check=False
    )
    return (shown.stdout + shown.stderr).decode("utf-8", "replace")


def _python_home() -> str | None:
    """The folder of this Python where /usr does not hold it."""
    home = str(Path(sys.base_prefix).resolve())
    return None if home == "/usr" or home.startswith("/usr/") else home


def python_program() -> str:
    """The Python that runs programs in the sandbox: this one, outside its virtual environment."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


@lru_cache(maxsize=1)
def _counts_in_namespaces() -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", platform.release())
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (5, 14)


def _limited(argv: Sequence[str], options: SandboxOptions) -> list[str]:
    """The command under rlimits, which hold for each process; `run_process` adds them up."""
    n_tasks = _TASKS_PER_PROCESS * options.n_processes
    # Since Linux 5.14 counted for each user namespace; before, a user's other programs would count. Not for root.
    # bash calls it -u, dash -p.
    tasks = (
        f"{{ ulimit -u {n_tasks} || ulimit -p {n_tasks}; }} 2>/dev/null; " if _counts_in_namespaces() else ""
    )
    script = (
        f"{tasks}ulimit -c 0; ulimit -v {options.memory_mb * 1024}; ulimit -f {options.file_mb * 2048}; "
        f'ulimit -t {int(options.time_s) + 1}; ulimit -n 256; exec "$@"'
    )
    return ["/bin/sh", "-c", script, "sh", *argv]
