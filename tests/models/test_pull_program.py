"""`pull` as its own process: interrupted, killed, twice at once, on a full disk, offline, at a terminal."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.models.fake_hub import FakeHub
from tests.tiny_gguf import TinyShape, write_gguf

REPO = "tiny/model"
REF = f"{REPO}:q8_0"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("c") / "x.gguf", TinyShape(n_vocab=1500)).read_bytes()


@pytest.fixture
def hub(content):
    with FakeHub() as server:
        server.repos[f"{REPO}-GGUF"] = {"model-Q8_0.gguf": content}
        yield server


@pytest.fixture
def program(hub, tmp_path):
    """Starts the program on the hub, with a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = kept | {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "SMOLTOOLS_EDGE_CACHE": str(tmp_path / "own"),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    started = []

    def start(*args, stderr=subprocess.PIPE, preexec_fn=None, **more):
        command = [sys.executable, "-m", "edge.cli", *args]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment | more, cwd=tmp_path,
            preexec_fn=preexec_fn,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process, timeout_s=60):
    out, err = process.communicate(timeout=timeout_s)
    assert "Traceback" not in (err or "")
    return process.returncode, out, err


def wait_for_bytes(hub, n_bytes):
    deadline = time.monotonic() + 30
    while hub.bytes_sent < n_bytes:
        assert time.monotonic() < deadline, hub.requests
        time.sleep(0.005)


def partial_files(tmp_path):
    return list((tmp_path / "hf" / "hub").rglob("*.incomplete"))


def test_what_was_pulled_is_told_as_json(program, tmp_path, content):
    code, out, err = finish(program("pull", REF, "--json"))
    assert code == 0, err
    row = json.loads(out)
    path = Path(row["path"])
    assert path.read_bytes() == content
    assert path.is_relative_to(tmp_path / "hf" / "hub")
    assert row == {
        "name": f"{REPO}-GGUF", "ref": f"{REPO}-GGUF:Q8_0", "installed": True, "path": str(path),
        "quantization": "F32", "size_bytes": len(content), "n_ctx_train": 1024,
        "warnings": ["it has no chat template; the built-in Hermes template is used"],
    }  # fmt: skip
    assert err.splitlines()[0] == f"fetching model-Q8_0.gguf ({len(content) / 1e6:.1f} MB) of {REPO}-GGUF"
    assert err.splitlines()[-1].startswith(f"warning: {path}: it has no chat template")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_after_an_interruption_the_same_command_goes_on(program, hub, tmp_path, content, how):
    hub.faults.block_s = 0.01
    process = program("pull", REF)
    wait_for_bytes(hub, len(content) // 3)
    process.send_signal(how)
    code, out, err = finish(process)
    assert out == ""
    if how == signal.SIGINT:
        assert code == 130
        kept = (
            f"of {len(content) / 1e6:.1f} MB of model-Q8_0.gguf are kept; the same command goes on from there"
        )
        assert err.splitlines()[-1].endswith(kept)
    [partial] = partial_files(tmp_path)
    n_kept = partial.stat().st_size
    assert partial.read_bytes() == content[:n_kept]
    assert n_kept > 0
    hub.faults.block_s = 0
    wait_for_quiet(hub)
    n_sent = hub.bytes_sent
    code, out, err = finish(program("pull", REF))
    assert code == 0, err
    assert Path(out.strip()).read_bytes() == content
    assert hub.bytes_sent - n_sent == len(content) - n_kept
    assert hub.content_requests()[-1] == f"bytes={n_kept}-"
    assert "going on from" in err
    assert partial_files(tmp_path) == []


def wait_for_quiet(hub):
    """Until the server has noticed that nobody reads any more."""
    before = -1
    while hub.bytes_sent != before:
        before = hub.bytes_sent
        time.sleep(0.1)


def test_two_processes_fetch_once(program, hub, content):
    hub.faults.block_s = 0.02
    results = [finish(process) for process in [program("pull", REF), program("pull", REF)]]
    assert [code for code, _, _ in results] == [0, 0]
    assert results[0][1] == results[1][1]
    assert Path(results[0][1].strip()).read_bytes() == content
    assert hub.bytes_sent == len(content)
    assert len([err for _, _, err in results if "another process is fetching" in err]) == 1


def test_a_disk_that_fills_up_keeps_what_came(program, hub, tmp_path, content):
    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    code, out, err = finish(program("pull", REF, preexec_fn=little_room))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert "cannot be written: File too large; free some disk space, or set HF_HOME" in err.splitlines()[-1]
    [partial] = partial_files(tmp_path)
    assert partial.read_bytes() == content[: partial.stat().st_size]


def test_offline_what_is_not_there_is_one_line(program, hub):
    code, out, err = finish(program("run", "hi", "--model", REF, HF_HUB_OFFLINE="1"))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "HF_HUB_OFFLINE is set" in err
    assert hub.requests == []


def test_at_a_terminal_progress_is_a_bar_with_rate_and_time_left(program, hub):
    hub.faults.block_s = 0.02
    ours, theirs = pty.openpty()
    process = program("pull", REF, stderr=theirs, TERM="xterm", COLUMNS="120")
    os.close(theirs)
    seen = b""
    while chunk := read(ours):
        seen += chunk
    os.close(ours)
    assert process.wait(30) == 0
    text = seen.decode()
    assert "model-Q8_0.gguf" in text
    assert "━" in text
    assert "B/s" in text
    assert "00:0" in text


def read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""
