"""A checkpoint from the hub, played by a server on this machine: fetched, resumed after a break, converted."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.convert.tiny_checkpoints import TINY, write_tiny

pytestmark = pytest.mark.model
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/tiny-model"


class Hub:
    """The answers of a hub with one repository.

    n_cuts: how many downloads of the first shard break off. refuses: whether it is refused altogether.
    """

    def __init__(self, folder: Path, n_cuts: int = 0) -> None:
        self.folder, self.n_cuts, self.refuses = folder, n_cuts, False
        self.requests: list[tuple[str, str | None]] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if match := re.fullmatch(rf"/{REPO}/resolve/[^/]+/(.+)", path):
            self._file(self.hub.folder / match[1])
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            entries = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file)}
                for file in self.hub.files()
            ]
            self._json(entries)
        elif path.startswith(f"/api/models/{REPO}"):
            self._json(
                {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": f.name} for f in self.hub.files()]}
            )
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content = file.read_bytes()
        if self.hub.refuses and file.name.startswith("model-00001"):
            self._send(403, b"", {})
            return
        wanted = self.headers.get("Range")
        if self.command == "GET":
            self.hub.requests.append((file.name, wanted))
        headers = {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if wanted:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], headers)
        else:
            self._send(200, content, headers, is_cut=self._is_cut(file))

    def _is_cut(self, file: Path) -> bool:
        is_cut = self.command == "GET" and file.name.startswith("model-00001") and self.hub.n_cuts > 0
        self.hub.n_cuts -= is_cut
        return is_cut

    def _send(self, status: int, body: bytes, headers: dict[str, str], is_cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:5000] if is_cut else body)
            self.close_connection = is_cut


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture
def repository(tmp_path):
    folder = write_tiny(tmp_path / "repository", TINY["qwen3-tied"], n_shards=2)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: someone/base\n---\n# Tiny\n")
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    return folder


def run_convert(hub: Hub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    code = "import sys; from edge.cli.start import run; sys.exit(run(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        code,
        "convert",
        *arguments,
        "--out",
        str(tmp_path / "out"),
        "--type",
        "bf16",
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_repository_is_fetched_converted_and_named_in_the_file(repository, tmp_path):
    hub = Hub(repository)
    result = run_convert(hub, tmp_path, REPO, "--pre", "qwen2", "--json")
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "out" / "tiny-model.json").read_text())
    assert manifest["provenance"]["source"] == REPO
    assert manifest["provenance"]["revision"] == COMMIT
    assert manifest["provenance"]["license"] == "apache-2.0"
    assert manifest["provenance"]["base_models"] == ["someone/base"]
    fetched = {name for name, _ in hub.requests}
    assert "pytorch_model.bin" not in fetched
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} <= fetched


def test_a_connection_that_breaks_off_is_tried_again(repository, tmp_path):
    result = run_convert(Hub(repository, n_cuts=1), tmp_path, REPO, "--pre", "qwen2")
    assert result.returncode == 0, result.stderr


def test_after_a_failed_download_only_the_missing_files_are_fetched(repository, tmp_path):
    hub = Hub(repository)
    hub.refuses = True
    result = run_convert(hub, tmp_path, REPO, "--pre", "qwen2")
    assert result.returncode == 1
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith("error: someone/tiny-model cannot be fetched from the hub: ")
    hub.refuses = False
    hub.requests.clear()
    again = run_convert(hub, tmp_path, REPO, "--pre", "qwen2")
    assert again.returncode == 0, again.stderr
    fetched = {name for name, _ in hub.requests}
    assert "model-00001-of-00002.safetensors" in fetched
    assert "model-00002-of-00002.safetensors" not in fetched


def test_a_repository_that_does_not_exist_is_one_line(repository, tmp_path):
    result = run_convert(Hub(repository), tmp_path, "someone/nothing")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(
        "error: someone/nothing cannot be fetched from the hub: "
    )
    assert "Traceback" not in result.stderr


def test_a_hub_that_does_not_answer_is_one_line(repository, tmp_path):
    hub = Hub(repository)
    hub.server.server_close()
    hub.server.shutdown()
    result = run_convert(hub, tmp_path, REPO)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(
        "error: someone/tiny-model cannot be fetched from the hub: "
    )
