"""A hub on 127.0.0.1: what huggingface_hub asks of the real one, with the faults that networks have.

Content lies behind a redirect to another origin (`localhost`), as on the real hub. It counts what it sends.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
BLOCK = 16 << 10


@dataclass
class Faults:
    """What goes wrong, each once per entry of its list unless said otherwise."""

    cut_after: list[int] = field(
        default_factory=list
    )  # bytes sent of an answer before the connection is closed
    statuses: list[int] = field(default_factory=list)  # answers to requests for content
    retry_after_s: int | None = None
    api_status: int | None = None  # to every request of the API
    head_status: int | None = None  # to every HEAD
    passing: list[int] = field(default_factory=list)  # to requests of the API and HEADs
    error_code: str | None = None  # X-Error-Code of the two above
    error_message: str | None = None
    announced_extra: int = 0  # added to the announced size, always
    sent_extra: int = 0  # bytes appended to the content, always
    flip: list[int] = field(default_factory=list)  # positions of which a byte is sent wrong
    no_ranges: bool = False
    wrong_range: bool = False
    no_describe: bool = False  # a mirror without /api/models/user/repo
    no_commit: bool = False
    html: bool = False  # a captive portal
    stall_after: int | None = None  # bytes, then nothing is sent until the server stops
    block_s: float = 0.0  # rest after each block
    bare_path: str | None = None  # a file name that is announced as it is


class FakeHub:
    """The server. Use it in a `with` block."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, str] = {}  # repository: token
        self.gated: set[str] = set()
        self.faults = Faults()
        self.commit = COMMIT
        self.bytes_sent = 0
        self.requests: list[tuple[str, str, str | None, bool]] = []  # method, path, range, has a token
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No more answers, and no more connections."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._server.shutdown()
            self._server.server_close()

    def take(self, faults: list[int]) -> int | None:
        with self._lock:
            return faults.pop(0) if faults else None

    def count(self, n_bytes: int) -> None:
        with self._lock:
            self.bytes_sent += n_bytes

    def when_sent(self, n_bytes: int, then: Callable[[], object]) -> None:
        """Calls `then`, in a thread of its own, once so many bytes were sent."""

        def wait() -> None:
            while self.bytes_sent < n_bytes and not self.stopping.wait(0.002):
                pass
            then()

        threading.Thread(target=wait, daemon=True).start()

    def content_requests(self) -> list[str | None]:
        """The Range headers of all requests for content."""
        return [rng for method, path, rng, _ in self.requests if path.startswith("/cdn/") and method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        if hub.stopping.is_set():
            self.close_connection = True  # a connection that was kept open
            return None
        has_token = "authorization" in self.headers
        hub.requests.append((self.command, path, self.headers.get("Range"), has_token))
        if hub.faults.html:
            return self._send(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
        if api := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(/revision/[^/]+|/tree/[^/]+)?", path):
            return self._api(api[1], (api[2] or "").startswith("/tree"))
        if content := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._resolve(content[1], content[2])
        if cdn := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            return self._content(hub.repos[cdn[1]][cdn[2]])
        return self._send(404, b"{}", {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str | None, message: str | None) -> None:
        headers = {"X-Error-Code": code} if code else {}
        headers |= {"X-Error-Message": message} if message else {}
        self._send(status, json.dumps({"error": message or "no"}).encode(), headers)

    def _is_refused(self, repo: str, status: int | None) -> bool:
        hub = self.hub
        status = hub.take(hub.faults.passing) or status
        if status is not None:
            self._refuse(status, hub.faults.error_code, hub.faults.error_message)
        elif (token := hub.private.get(repo)) and self.headers.get("authorization") != f"Bearer {token}":
            self._refuse(401, None, "Invalid username or password.")
        elif repo not in hub.repos:
            self._refuse(
                401 if "authorization" not in self.headers else 404, "RepoNotFound", "Repository not found"
            )
        else:
            return False
        return True

    def _api(self, repo: str, is_tree: bool) -> None:
        hub = self.hub
        if hub.faults.no_describe and not is_tree:
            return self._send(404, b"{}", {})
        if self._is_refused(repo, hub.faults.api_status):
            return None
        files = {hub.faults.bare_path or path: data for path, data in hub.repos[repo].items()}
        if is_tree:
            rows = [{"type": "file", "path": p, "size": len(d), "oid": git_sha1(d)} for p, d in files.items()]
            return self._send(200, json.dumps(rows).encode(), {})
        siblings = [{"rfilename": p, "size": len(d), "blobId": git_sha1(d)} for p, d in files.items()]
        info = {
            "id": repo,
            "modelId": repo,
            "sha": hub.commit,
            "private": False,
            "tags": [],
            "siblings": siblings,
        }
        return self._send(200, json.dumps(info).encode(), {})

    def _resolve(self, repo: str, path: str) -> None:
        hub = self.hub
        if self._is_refused(repo, hub.faults.head_status if self.command == "HEAD" else None):
            return None
        if repo in hub.gated:
            return self._refuse(403, "GatedRepo", f"Access to model {repo} is restricted")
        data = hub.repos[repo].get(path)
        if data is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        headers = {
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Linked-Size": str(len(data) + hub.faults.announced_extra),
            "Location": f"http://localhost:{hub.port}/cdn/{repo}/{path}",
            "ETag": '"something else"',
        } | ({} if hub.faults.no_commit else {"X-Repo-Commit": hub.commit})
        return self._send(302, b"", headers)

    def _content(self, data: bytes) -> None:
        hub, faults = self.hub, self.hub.faults
        if (status := hub.take(faults.statuses)) is not None:
            headers = {"Retry-After": str(faults.retry_after_s)} if faults.retry_after_s is not None else {}
            return self._send(status, b"{}", headers)
        if (position := hub.take(faults.flip)) is not None:
            data = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
        data += b"x" * faults.sent_extra
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and not faults.no_ranges else 0
        if asked and start >= len(data):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        self.send_response(206 if asked and not faults.no_ranges else 200)
        if asked and not faults.no_ranges:
            first = start + 1 if faults.wrong_range else start
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self._send_blocks(data[start:])
        return None

    def _send_blocks(self, data: bytes) -> None:
        hub, faults = self.hub, self.hub.faults
        cut = hub.take(faults.cut_after)
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK][: None if cut is None else max(cut - at, 0)]
            if hub.stopping.is_set():
                block = b""
            try:
                self.wfile.write(block)
            except OSError:
                return
            hub.count(len(block))
            if len(block) < min(BLOCK, len(data) - at):
                self.close_connection = True
                return
            if faults.stall_after is not None and at + BLOCK >= faults.stall_after:
                hub.stopping.wait(20)
                self.close_connection = True
                return
            time.sleep(faults.block_s)


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
