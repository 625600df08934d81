"""What systemd is told: a socket stands in for it, and the real program's life is run over a fake engine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from edge.server.supervisor import Supervisor


class Manager:
    """A supervisor's end of the protocol."""

    def __init__(self, address):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.settimeout(30)

    def next(self):
        return self.sock.recv(4096).decode()

    def told_within(self, seconds):
        """Everything that arrives until then."""
        told, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                told.append(self.next())
            except TimeoutError:
                break
        return told


@pytest.fixture
def manager(tmp_path):
    found = Manager(str(tmp_path / "notify"))
    yield found
    found.sock.close()


def supervised(tmp_path, **more):
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), **more}


def test_without_systemd_nobody_is_told(tmp_path):
    assert Supervisor.from_environment({}) == Supervisor(None, None)
    Supervisor().tell_ready("x")


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "\u0663"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_counts_when_it_is_meant_for_this_process(tmp_path, environ, watchdog_s):
    assert Supervisor.from_environment(supervised(tmp_path, **environ)).watchdog_s == watchdog_s


def test_a_supervisor_that_reads_nothing_is_not_waited_for(manager, tmp_path):
    """The kernel holds some hundred datagrams for a reader, then the next send would wait for ever."""
    busy = Supervisor.from_environment(supervised(tmp_path))
    sender = threading.Thread(target=lambda: [busy.tell_alive() for _ in range(2000)], daemon=True)
    sender.start()
    sender.join(30)
    assert not sender.is_alive()


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234"])
def test_an_address_of_another_kind_is_left_alone(address):
    assert Supervisor.from_environment({"NOTIFY_SOCKET": address}) == Supervisor()


def test_messages_are_fields_on_lines(manager, tmp_path):
    supervisor = Supervisor.from_environment(supervised(tmp_path))
    supervisor.tell_loading("demo\nREADY=1")
    assert manager.next() == "STATUS=loading demo READY=1"
    supervisor.tell_ready("demo")
    assert manager.next() == "READY=1\nSTATUS=serving demo"
    supervisor.tell_alive()
    assert manager.next() == "WATCHDOG=1"
    supervisor.tell_stopping(2)
    assert manager.next().startswith("STOPPING=1\nSTATUS=")


def test_the_abstract_namespace():
    manager = Manager(f"\0smoltools-edge-test-{os.getpid()}")
    Supervisor(f"@smoltools-edge-test-{os.getpid()}").tell_alive()
    assert manager.next() == "WATCHDOG=1"
    manager.sock.close()


def test_a_supervisor_that_is_gone_takes_nothing_with_it(tmp_path):
    Supervisor(str(tmp_path / "nobody")).tell_alive()


SCRIPT = """
import os, sys, threading, time
from dataclasses import replace
from edge.server.lifecycle import serve
from edge.server.options import ListenOptions, ServerOptions
from edge.server.supervisor import Supervisor
from tests.server.fake_engine import FakeEngine, saying
class Engine(FakeEngine):
    def stats(self):
        return replace(super().stats(), step_s=float(sys.argv[1]))
def load():
    time.sleep(0.2)
    return Engine(saying("x"))
options, listen = ServerOptions(model_id="tiny"), ListenOptions(port=0, grace_s=1)
serve(load, options, listen, supervisor=Supervisor.from_environment(os.environ))
"""


@pytest.fixture
def served(tmp_path, manager):
    """Starts a server under the manager; `step_s` is how long its engine says that its step is taking."""
    started = []

    def start(step_s, **environ):
        command = [sys.executable, "-c", SCRIPT, str(step_s)]
        started.append(subprocess.Popen(command, env=os.environ | supervised(tmp_path, **environ)))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_life_is_told_from_loading_to_stopping(served, manager):
    process = served(0, WATCHDOG_USEC="300000")
    assert manager.next() == "STATUS=loading tiny"
    assert manager.next() == "READY=1\nSTATUS=serving tiny, n_ctx 2048"
    assert [manager.next() for _ in range(3)] == ["WATCHDOG=1"] * 3
    process.send_signal(signal.SIGTERM)
    assert any(text.startswith("STOPPING=1") for text in manager.told_within(5))
    assert process.wait(20) == 0


def test_a_model_that_is_stuck_in_a_step_gives_no_sign_of_life(served, manager):
    served(301, WATCHDOG_USEC="150000")
    assert manager.next() == "STATUS=loading tiny"
    assert manager.next().startswith("READY=1")
    assert manager.told_within(0.6) == []
