"""A group of tasks that the kernel bounds; only where groups can be made."""

import subprocess
import time
from pathlib import Path

import psutil
import pytest

from edge.tools import task_group as module
from edge.tools.task_group import task_group


@pytest.fixture
def join():
    with task_group(6) as prefix:
        if not prefix:
            pytest.skip("no control group can be made here")
        yield prefix


def test_a_command_cannot_have_more_tasks_than_its_group(join):
    script = "import subprocess\nfor _ in range(20): subprocess.Popen(['sleep', '9'], stdout=-3, stderr=-3)"
    ran = subprocess.run([*join, "python3", "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "Resource temporarily unavailable" in ran.stderr
    assert len(Path(join[-1]).read_text().split()) == 5


def test_the_end_of_the_group_ends_what_was_left_in_it():
    with task_group(6) as prefix:
        if not prefix:
            pytest.skip("no control group can be made here")
        shown = subprocess.run(
            [*prefix, "sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"],
            capture_output=True,
            check=True,
        )
        left = int(shown.stdout)
        assert psutil.pid_exists(left)
    until = time.monotonic() + 5
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
    assert not Path(prefix[-1]).parent.exists()


def test_a_command_runs_unbounded_where_no_group_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOUNT", tmp_path / "not mounted")
    with task_group(6) as prefix:
        assert prefix == []


def test_a_command_runs_unbounded_where_the_group_cannot_be_joined(tmp_path, monkeypatch):
    closed = tmp_path / "group"
    (closed / "cgroup.procs").mkdir(parents=True)  # nobody can write there
    monkeypatch.setattr(module, "_made", lambda n_tasks: closed)
    monkeypatch.setattr(module, "_END_WITHIN_S", 0.05)
    with task_group(6) as prefix:
        assert prefix == []
