"""A service that needs no systemd: a real `smoltools-edge serve`, or a small server that only looks like one.

Run as a program it is the restart command of the real one: `python fake_service.py FOLDER PORT [FURTHER ARGUMENTS]`
ends the server whose process number is in FOLDER/pid, starts another on the link FOLDER/models/current, and waits like
systemctl until it is ready or gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def restart(folder: Path, port: str, more: list[str]) -> int:
    stop(folder)
    command = [sys.executable, "-m", "edge.cli", "serve", "--port", port, "--threads", "1", *more]
    command += ["--model", str(folder / "models" / "current")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"SMOLTOOLS_EDGE_CACHE": str(folder)},  # as the unit has it
        )
    (folder / "pid").write_text(str(process.pid))
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return 0
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return 1


def stop(folder: Path) -> None:
    try:
        pid = int((folder / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except OSError:
            return
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)


class LookAlike:
    """Answers /health, /v1/models and one call; reads the link when it is `restarted`.

    bad: for each file name that is not well, how it shows: `dead` (503 for ever), `mute` (no tool call), `start` (the
    restart itself fails), `other` (serves another model).
    """

    def __init__(self, models: Path, bad: dict[str, str]) -> None:
        self.models, self.bad, self.restarts, self.key = models, bad, [], None
        self.serving = (models / "current").resolve()
        look_alike = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._answer(look_alike.get(self.path))

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                look_alike.key = self.headers.get("Authorization")
                self._answer(look_alike.call())

            def _answer(self, answer: tuple[int, object]) -> None:
                body = json.dumps(answer[1]).encode()
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def fault(self) -> str | None:
        return self.bad.get(self.serving.name)

    def get(self, path: str) -> tuple[int, object]:
        if path == "/health":
            return (503, {"status": "loading"}) if self.fault == "dead" else (200, {"status": "ok"})
        size = 1 if self.fault == "other" else self.serving.stat().st_size
        return 200, {"data": [{"id": self.serving.stem, "meta": {"size_bytes": size}}]}

    def call(self) -> tuple[int, object]:
        call = {"function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
        return 200, {"choices": [{"message": {"tool_calls": [] if self.fault == "mute" else [call]}}]}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":
    sys.exit(restart(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
