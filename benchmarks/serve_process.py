"""Starts `smoltools-edge serve` for a benchmark, waits until it is ready, and ends it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    url: str
    pid: int

    def health(self) -> dict[str, object]:
        """What it says of itself."""
        answer: dict[str, object] = httpx.get(f"{self.url}/health", timeout=10).json()
        return answer

    def wait_until_idle(self, seconds: float = 60) -> dict[str, object]:
        """Its health once nothing runs or waits; as it is after so many seconds."""
        deadline = time.monotonic() + seconds
        while (health := self.health())["running"] or health["queued"]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return health


@contextmanager
def serving(
    *args: str, ready_s: float = 120, program: Sequence[str] = ("-m", "edge.cli")
) -> Iterator[Served]:
    """The server with these arguments, on a free port of this machine. program: what Python is to run."""
    command = [sys.executable, *program, "serve", "--port", "0", *args]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            url = _url(process)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            served = Served(url, process.pid)
            wait_ready(url, ready_s)
            yield served
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("listening on "):
            return line.split(";")[0].split()[-1]
    raise SystemExit(f"the server did not start: {said}")


def wait_ready(url: str, seconds: float) -> None:
    """Returns when /health is 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"{url} was not ready within {seconds:g} s")
