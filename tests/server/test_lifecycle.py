"""From the start of the program to its exit code, as a supervisor sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from edge.server.lifecycle import check_listen, listening_socket, serve
from edge.server.options import ListenOptions, ServerError, ServerOptions
from tests.server.fake_engine import FakeEngine, saying
from tests.server.test_overload import wait_until
from tests.tiny_gguf import write_gguf

HI = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("serve") / "tiny.gguf")


@pytest.fixture
def program(tiny_model, tmp_path):
    """Starts `smoltools-edge serve` on a free port: the process, a client for it."""
    started = []

    def start(*args, env=None):
        command = [
            sys.executable,
            "-m",
            "edge.cli",
            "serve",
            "--port",
            "0",
            "--model",
            str(tiny_model),
            *args,
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (env or {})
        )
        started.append(process)
        process.told = [process.stderr.readline()]
        process.url = process.told[0].split(";")[0].split()[-1]
        process.reader = threading.Thread(target=lambda: process.told.extend(process.stderr), daemon=True)
        process.reader.start()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.reader.join(5)
        process.stdout.close()
        process.stderr.close()


def ready(process, http):
    wait_until(lambda: http.get("/health").status_code == 200, seconds=60)


@pytest.mark.model
def test_the_program_serves_and_ends_with_0(program):
    process = program("--n-ctx", "256", "--threads", "1", "--log-json", "--max-tokens", "5")
    with httpx.Client(base_url=process.url, timeout=30) as http:
        ready(process, http)
        answer = http.post("/v1/chat/completions", json=HI).json()
        assert answer["model"] == "tiny"
        assert answer["usage"]["completion_tokens"] <= 5
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stdout.read() == ""
    wait_until(lambda: any('"route": "/v1/chat/completions"' in line for line in process.told))
    logged = [json.loads(line) for line in process.told if line.startswith("{")]
    assert logged[-1]["status"] == 200
    assert str(Path.cwd()) not in "".join(process.told)


@pytest.mark.model
def test_two_signals_end_it_at_once(program):
    process = program("--n-ctx", "1024", "--threads", "1", "--grace", "60")
    with httpx.Client(base_url=process.url, timeout=30) as http:
        ready(process, http)
        host, port = process.url.removeprefix("http://").split(":")
        data = json.dumps(HI | {"max_tokens": 900, "stream": True}).encode()
        with socket.create_connection((host, int(port))) as sock:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
            sock.sendall(head.encode() + data)
            wait_until(lambda: sock.recv(100))
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


class Life:
    """`serve` in a process's main thread cannot be tested in a thread; this runs it in a child with a fake engine."""

    SCRIPT = """
import gc, sys, threading, time
from edge.server.lifecycle import serve
from edge.server.options import ListenOptions, ServerOptions
from tests.server.fake_engine import FakeEngine, saying
load_s, answer_s, grace_s = map(float, sys.argv[1:4])
def load():
    time.sleep(load_s)
    if load_s == 0.125:
        from edge.errors import ModelError
        raise ModelError("no such model")
    return FakeEngine(lambda request: [*saying("begun")[:-1], answer_s, *saying("done")])
try:
    listen = ListenOptions(port=0, grace_s=grace_s)
    serve(load, ServerOptions(), listen, on_listening=lambda url: print(url, flush=True))
    print("out of the collector's sight:", gc.get_freeze_count() > 1000, flush=True)
except Exception as exc:
    print(type(exc).__name__, flush=True)
    sys.exit(1)
"""

    def __init__(self, load_s, answer_s, grace_s):
        numbers = [str(number) for number in (load_s, answer_s, grace_s)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT, *numbers], stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().strip()
        self.http = httpx.Client(base_url=self.url, timeout=20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def answer_in_thread(self):
        found = []
        thread = threading.Thread(
            target=lambda: found.append(self.http.post("/v1/chat/completions", json=HI))
        )
        thread.start()
        return thread, found

    def is_running(self):
        return self.http.get("/health").json().get("running") == 1


def test_the_socket_answers_before_the_model_is_there_and_a_signal_ends_the_loading():
    with Life(30, 0, 1) as life:
        assert life.http.get("/health").json()["status"] == "loading"
        assert life.http.post("/v1/chat/completions", json=HI).status_code == 503
        life.process.send_signal(signal.SIGTERM)
        assert life.process.wait(20) == 0


def test_a_model_that_cannot_be_loaded_ends_the_program_with_its_error():
    with Life(0.125, 0, 1) as life:
        assert life.process.wait(30) == 1
        assert life.process.stdout.read().strip() == "ModelError"


def test_a_running_answer_is_finished_new_ones_are_refused_and_the_exit_code_is_0():
    with Life(0, 1.5, 20) as life:
        wait_until(lambda: life.http.get("/health").status_code == 200)
        thread, found = life.answer_in_thread()
        wait_until(life.is_running)
        life.process.send_signal(signal.SIGTERM)
        wait_until(lambda: life.http.get("/health").json()["status"] == "closing")
        refused = life.http.post("/v1/chat/completions", json=HI)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        thread.join()
        assert found[0].json()["choices"][0]["message"]["content"] == "done"
        assert life.process.wait(30) == 0


def test_what_is_loaded_does_not_count_towards_the_next_full_collection():
    with Life(0, 0, 1) as life:
        wait_until(lambda: life.http.get("/health").status_code == 200)
        life.process.send_signal(signal.SIGTERM)
        assert life.process.wait(30) == 0
        assert life.process.stdout.read().strip() == "out of the collector's sight: True"


def test_an_answer_that_takes_longer_than_the_grace_is_given_up():
    with Life(0, 60, 0.3) as life:
        wait_until(lambda: life.http.get("/health").status_code == 200)
        thread, _ = life.answer_in_thread()
        wait_until(life.is_running)
        started = time.monotonic()
        life.process.send_signal(signal.SIGTERM)
        assert life.process.wait(40) == 0
        assert time.monotonic() - started < 30
        thread.join(10)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_hosts_need_a_key(host):
    with pytest.raises(ServerError, match="no API key"):
        check_listen(ServerOptions(), ListenOptions(host=host))
    check_listen(ServerOptions(api_keys=("k",)), ListenOptions(host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_needs_none(host):
    check_listen(ServerOptions(), ListenOptions(host=host))


def test_a_port_that_is_taken_is_said_in_one_line():
    with listening_socket(ListenOptions(port=0)) as taken, pytest.raises(ServerError, match="in use"):
        listening_socket(ListenOptions(port=taken.getsockname()[1]))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a b", "x" * 300])
def test_a_host_that_is_none_is_said_in_one_line(host):
    with pytest.raises(ServerError, match="is not an address"):
        listening_socket(ListenOptions(host=host, port=0))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    return cert, key


@pytest.mark.model
def test_tls_by_file_names(program, certificate):
    cert, key = certificate
    process = program("--n-ctx", "256", "--threads", "1", "--tls-cert", str(cert), "--tls-key", str(key))
    assert process.url.startswith("https://")
    with httpx.Client(base_url=process.url, verify=ssl.create_default_context(cafile=str(cert))) as http:
        ready(process, http)


@pytest.mark.parametrize("broken", ["missing", "only one", "not a key"])
def test_tls_files_that_cannot_be_used_are_refused_at_the_start(certificate, tmp_path, broken):
    cert, _ = map(str, certificate)
    other = tmp_path / "other.pem"
    other.write_text("no")
    listen = {
        "missing": ListenOptions(tls_cert=cert, tls_key=str(tmp_path / "none")),
        "only one": ListenOptions(tls_cert=cert),
        "not a key": ListenOptions(tls_cert=cert, tls_key=str(other)),
    }[broken]
    with pytest.raises(ServerError, match="TLS"):
        check_listen(ServerOptions(), listen)


def test_serve_refuses_before_it_loads():
    def load():
        raise AssertionError("loaded")

    with pytest.raises(ServerError, match="no API key"):
        serve(load, ServerOptions(), ListenOptions(host="0.0.0.0", port=0))


def test_the_fake_engine_finishes_what_runs():
    engine = FakeEngine(saying("ok"))
    engine.close()
    assert engine.stats().running == 0
