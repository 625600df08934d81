"""Programs in the sandbox: what they can do, and that they cannot do more. Skipped where bubblewrap does not work."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from edge.tools import sandbox
from edge.tools.executable import CallContext, ToolFailure
from edge.tools.sandbox import SandboxOptions, run_sandboxed, sandbox_problem

QUICK = {"sandbox": {"time_s": 1, "memory_mb": 200, "n_processes": 20, "file_mb": 8}}


def test_without_bubblewrap_nothing_is_run(monkeypatch, builtin):
    sandbox_problem.cache_clear()
    monkeypatch.setattr(sandbox.shutil, "which", lambda *args, **kwargs: None)
    try:
        for name, argument in (("execute_python", "code"), ("shell_command", "command")):
            result = builtin(name, **{argument: "touch ran"})
            assert result.is_error
            assert "not run without a sandbox, and bubblewrap is not installed" in result.text
    finally:
        sandbox_problem.cache_clear()


def test_where_namespaces_are_forbidden_nothing_is_run(monkeypatch, builtin, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    sandbox_problem.cache_clear()
    sandbox._features.cache_clear()
    monkeypatch.setattr(sandbox.shutil, "which", lambda *args, **kwargs: str(fake))
    try:
        assert "does not work here: bwrap: setting up uid map" in builtin("shell_command", command="id").text
    finally:
        sandbox_problem.cache_clear()
        sandbox._features.cache_clear()


pytestmark = []
inside = pytest.mark.usefixtures("needs_sandbox")


@inside
def test_python_runs_and_prints(builtin):
    assert builtin("execute_python", code="print(sum(range(10)))").text == "45"
    assert builtin("execute_python", code="x = 1").text == "(no output; use print)"


@inside
def test_a_failing_program_shows_its_traceback(builtin):
    result = builtin("execute_python", code="x = 1\nx / 0")
    assert result.is_error
    assert "x / 0" in result.text
    assert result.text.endswith("ZeroDivisionError: division by zero\n[exit code 1]")


@inside
def test_the_shell_works_in_the_workspace(builtin, workspace):
    assert (
        builtin("shell_command", command="echo hi > a.txt; cat /workspace/a.txt; exit 3").text
        == "hi\n[exit code 3]"
    )
    assert (workspace.folder / "a.txt").read_text() == "hi\n"


@inside
def test_the_workspace_can_be_read_only(builtin, workspace):
    result = builtin("shell_command", {"sandbox": {"write": False}}, command="echo hi > a.txt")
    assert result.is_error
    assert not (workspace.folder / "a.txt").exists()


ESCAPES = [
    "cat {secret}", "cat ../secret.txt",
    "ls {home}/.ssh {home}/.config {home}/.profile", "cat /etc/shadow", "cat /etc/passwd", "ls /root/. /home/.",
    "ln -s {secret} l; cat l", "ln {secret} l; cat l", "cat /proc/1/root{secret}", "cat /proc/self/root/../{secret}",
    "mount --bind / /tmp; cat /tmp{secret}", "mount -t proc proc /proc", "unshare -Urm cat {secret}",
    "echo x > /usr/bin/owned", "echo x > /bin/owned", "echo x > /owned", "echo x > /etc/owned", "echo x > /dev/owned",
    "echo x > /run/owned", "v=$(cat /proc/sys/kernel/core_pattern); echo \"$v\" > /proc/sys/kernel/core_pattern",
    "echo h > /proc/sysrq-trigger", "echo 60 > /proc/sys/vm/swappiness", "echo x > /proc/self/oom_score_adj",
    "mknod /tmp/d b 254 0 && cat /tmp/d", "chroot / id", "dmesg",
    "cat /dev/vda", "cat /dev/sda", "cat /dev/mem", "cat /proc/kcore", "ls /sys/class", "kill -9 {pid}",
    "cat /proc/{pid}/environ", "nsenter -t 1 -m id", "chown 12345 .", "ls /var/run/docker.sock",
    "sh -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'", "setpriv --reuid 0 cat /etc/shadow", "ls /tmp/..{tmp}",
    "python3 -c \"import ctypes; ctypes.CDLL(None).ptrace(16, {pid}, 0, 0) == 0 or exit(1)\"",
]  # fmt: skip


@inside
@pytest.mark.parametrize("command", ESCAPES)
def test_there_is_no_way_out(builtin, workspace, tmp_path, command):
    """Every one of these commands fails, and shows or changes nothing outside."""
    before = sorted(tmp_path.iterdir())
    filled = command.format(
        secret=tmp_path / "secret.txt", home=Path.home(), pid=os.getpid(), port=9, tmp=tmp_path
    )
    result = builtin("shell_command", QUICK, command=filled)
    assert result.is_error, result.text
    assert "the secret" not in result.text
    assert "root:x:" not in result.text
    assert sorted(tmp_path.iterdir()) == before
    assert not list(Path("/").glob("owned"))
    assert psutil.pid_exists(os.getpid())


@inside
def test_there_is_no_network(builtin):
    listener = socket.create_server(("127.0.0.1", 0))
    code = (
        "import socket\n"
        f"for target in [('127.0.0.1', {listener.getsockname()[1]}), ('1.1.1.1', 53), ('169.254.169.254', 80)]:\n"
        "    try:\n        socket.create_connection(target, timeout=1)\n        print('OPEN', target)\n"
        "    except OSError as exc:\n        print('closed')\n"
    )
    assert builtin("execute_python", code=code).text == "closed\n" * 2 + "closed"
    listener.close()


@inside
def test_abstract_sockets_of_the_machine_are_out_of_reach(builtin):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0smoltools-edge-test")
    listener.listen()
    code = "import socket; socket.socket(socket.AF_UNIX).connect('\\0smoltools-edge-test'); print('OPEN')"
    result = builtin("execute_python", code=code)
    listener.close()
    assert result.is_error
    assert "ConnectionRefusedError" in result.text


@inside
def test_no_secret_of_the_environment_is_inside(builtin, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    command = "env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/*/cmdline | tr '\\0' ' '"
    result = builtin("shell_command", command=command)
    assert "PATH=" in result.text
    assert "hf_secret" not in result.text


@inside
def test_no_open_file_of_the_program_is_inside(builtin, tmp_path):
    with (tmp_path / "secret.txt").open() as file:
        os.set_inheritable(file.fileno(), True)
        result = builtin("shell_command", command="ls -l /proc/self/fd; cat <&%d" % file.fileno())  # noqa: UP031
    assert "secret" not in result.text


@inside
def test_there_is_no_terminal_to_type_into(builtin):
    code = "import os; print(os.isatty(0), os.isatty(1)); open('/dev/tty')"
    result = builtin("execute_python", code=code)
    assert result.text.startswith("False False")
    assert result.is_error


@inside
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sleep 60", "longer than 1 s"),
        ("while :; do :; done", ""),
        ("exec >&- 2>&-; sleep 60", "longer than 1 s"),
        ("sleep 60 & sleep 60 & wait", "longer than 1 s"),
        ("setsid sleep 60; trap '' TERM HUP INT; sleep 60", "longer than 1 s"),
        ("f() { f | f & }; f; sleep 60", ""),
        ("yes", "[cut: there was more output]"),
        ("head -c 100M /dev/zero > big", ""),
        ("python3 -c \"x = bytearray(10**9)\"", "MemoryError"),
        ("for i in 1 2 3 4; do python3 -c 'x = b\"x\" * (100 << 20); import time; time.sleep(60)' & done; wait", ""),
        ("head -c 200M /dev/zero > /tmp/a; head -c 200M /dev/zero > /dev/shm/a; false", ""),
    ],
)  # fmt: skip
def test_what_takes_too_much_is_ended(builtin, workspace, command, said):
    started = time.monotonic()
    result = builtin("shell_command", QUICK, command=command)
    assert result.is_error
    assert said in result.text
    assert time.monotonic() - started < 10
    assert sum(path.stat().st_size for path in workspace.folder.iterdir()) <= 8 << 20
    assert not [
        p
        for p in psutil.process_iter(["name", "ppid"])
        if p.info["name"] == "bwrap" and p.ppid() == os.getpid()
    ]


@inside
def test_memory_of_all_processes_together_is_bounded(workspace):
    command = "for i in 1 2 3 4 5 6; do python3 -c 'x = b\"x\" * (90 << 20); import time; time.sleep(60)' & done; wait"
    options = SandboxOptions(memory_mb=200, time_s=20)
    outcome = run_sandboxed(["/bin/sh", "-c", command], workspace.folder, options, CallContext(30))
    assert outcome.killed == "it used more than 200 MB of memory"


@inside
def test_the_number_of_processes_is_bounded(workspace):
    options = SandboxOptions(n_processes=10, time_s=20)
    command = "for i in $(seq 30); do sleep 60 & done; wait"
    outcome = run_sandboxed(["/bin/sh", "-c", command], workspace.folder, options, CallContext(30))
    assert outcome.killed == "it started more than 10 processes"


@inside
def test_a_cancelled_program_ends(workspace):
    context = CallContext(30)
    threading.Timer(0.3, context.cancel).start()
    started = time.monotonic()
    outcome = run_sandboxed(["/bin/sleep", "60"], workspace.folder, SandboxOptions(), context)
    assert outcome.killed == "cancelled"
    assert time.monotonic() - started < 3


@inside
def test_a_program_that_is_not_there_is_an_error(workspace):
    outcome = run_sandboxed(["/bin/nothing"], workspace.folder, SandboxOptions(), CallContext(5))
    assert outcome.exit_code == 127


def test_a_command_that_cannot_start_is_a_tool_error(tmp_path):
    from edge.tools.process import ProcessLimits, run_process

    with pytest.raises(ToolFailure, match="cannot be started"):
        run_process(["/nothing"], ProcessLimits(), CallContext(5), env={})
