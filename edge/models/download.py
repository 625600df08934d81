"""One file from the hub into the hub's cache: resumed after a break and across runs, size and digest checked.

huggingface_hub 2 downloads into a temporary file of a random name and removes it on failure, so that a broken
download starts over (https://github.com/huggingface/huggingface_hub/issues/4196). Its session, headers, metadata, lock
and layout are used here; only the bytes are fetched by this module, with HTTP ranges into `<etag>.incomplete`.
That file is appended to by one process at a time, under the lock that huggingface_hub takes too; should the lock not
hold on some network file system, the file's length gives it away.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from edge.errors import CatalogueError
from edge.models.files import format_size
from edge.models.hub_cache import CachePlace, cache_dir, repo_dir
from edge.models.hub_errors import http_error, status_of, translate
from edge.models.lock import alone

Tell = Callable[[str], None]
Answer = TypeVar("Answer")
RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # between attempts that brought nothing
_MAX_RETRY_AFTER_S = 60.0
_SPARE_BYTES = 64 << 20  # left free on the disk
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a file has come. resumed_bytes of done_bytes were there from an earlier run."""

    name: str
    done_bytes: int
    total_bytes: int
    resumed_bytes: int = 0


OnBytes = Callable[[Transfer], None]


class _Interrupted(Exception):
    """The server ended the connection early, or answered something that cannot be appended."""


class _WrongContent(Exception):
    """All has come and it is not what the hub announced."""


def download(repo: str, path: str, *, tell: Tell, on_bytes: OnBytes) -> Path:
    """The path in the cache of a repository's file; fetches what of it is missing.

    tell: a line for each thing that a user may want to know. on_bytes: called as bytes come.
    Raises CatalogueError: refused, unreachable, disk full or not writable, or not the announced content.
    """
    source = _Source.ask(repo, path)
    place = CachePlace(repo_dir(repo), source.commit, path, source.etag)
    try:
        if not _is_there(place, source):
            tell(f"fetching {path} ({format_size(source.size_bytes)}) of {repo}")
            place.blob.parent.mkdir(parents=True, exist_ok=True)
            with alone(place.lock, f"fetching {path}", tell):
                if not _is_there(place, source):
                    _fetch(source, place, tell, on_bytes)
        return place.link()
    except http_error() as exc:
        raise translate(exc, repo) from exc
    except OSError as exc:
        raise CatalogueError(
            f"the cache {cache_dir()} cannot be written: {exc.strerror or exc}; set HF_HOME to a folder that can"
        ) from exc


def patiently(ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns; it is asked again while the hub answers that it cannot just now, up to 15 s.

    A hub that cannot be reached is not asked again: without a network that would be 15 s of waiting each time.
    """
    for wait_s in RETRY_WAITS_S:
        try:
            return ask()
        except http_error() as exc:
            if status_of(exc) is None or not _is_passing(exc):
                raise
            time.sleep(max(wait_s, _retry_after_s(exc)))
    return ask()


@dataclass(frozen=True, slots=True)
class _Source:
    """What the hub announces of a file."""

    repo: str
    path: str
    url: str
    commit: str
    etag: str
    size_bytes: int

    @classmethod
    def ask(cls, repo: str, path: str) -> _Source:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

        try:
            url = hf_hub_url(repo, path)
            found = patiently(lambda: get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT))
        except Exception as exc:
            raise translate(exc, repo) from exc
        if not found.commit_hash or not found.etag or not found.size:
            missing = "commit" if not found.commit_hash else "size or digest"
            raise CatalogueError(
                f"{constants.ENDPOINT} does not say the {missing} of {path}; check HF_ENDPOINT"
            )
        return cls(repo, path, url, found.commit_hash, found.etag, found.size)


def _is_there(place: CachePlace, source: _Source) -> bool:
    """Whether the content is in the cache. One of another length was damaged since, and is fetched again."""
    return any(
        path.exists() and path.stat().st_size == source.size_bytes for path in (place.blob, place.pointer)
    )


def _fetch(source: _Source, place: CachePlace, tell: Tell, on_bytes: OnBytes) -> None:
    """Makes the blob, or leaves `<etag>.incomplete` for the next try."""
    for attempt in (1, 2):
        with PartialFile(place.partial, source, on_bytes) as partial:
            _check_disk(place.blob.parent, source.size_bytes - partial.done_bytes)
            try:
                _receive(source, partial, tell)
                partial.check()
            except _WrongContent as exc:
                partial.restart()
                if attempt == 2:
                    place.partial.unlink()
                    raise CatalogueError(
                        f"{source.path} of {source.repo} {exc}; nothing was kept, try again"
                    ) from None
                tell(f"{source.path} {exc}; fetching it once more from the start")
                continue
            except BaseException as exc:
                partial.tell_what_is_kept(tell, exc)
                raise
        place.partial.replace(place.blob)
        return


def _check_disk(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SPARE_BYTES:
        raise CatalogueError(
            f"{format_size(needed_bytes)} are to be fetched and {folder} has {format_size(free)} free; "
            "free some (smoltools-edge models, rm), or set HF_HOME to a folder on another disk"
        )


class PartialFile:
    """A file that is being fetched: appended to, hashed on the way, and never longer than announced."""

    def __init__(self, path: Path, source: _Source, on_bytes: OnBytes) -> None:
        self.path, self.source, self.on_bytes = path, source, on_bytes
        self.done_bytes = self.resumed_bytes = 0
        self._file: IO[bytes] | None = None
        self._digest = self._new_digest()

    def __enter__(self) -> PartialFile:
        self._file = self.path.open("a+b", buffering=0)
        if self.path.stat().st_size > self.source.size_bytes:
            self.restart()
        self._file.seek(0)
        while chunk := self._file.read(_READ_BYTES):
            self._take(chunk)
        self.resumed_bytes = self.done_bytes
        self._report()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def is_complete(self) -> bool:
        """Whether as many bytes are there as announced."""
        return self.done_bytes == self.source.size_bytes

    def write(self, chunk: bytes) -> None:
        """Appends. Raises _WrongContent for more than announced, CatalogueError when the disk refuses."""
        if self.done_bytes + len(chunk) > self.source.size_bytes:
            raise _WrongContent(f"is longer than the {self.source.size_bytes} bytes announced")
        assert self._file is not None
        try:
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]
            length = os.fstat(self._file.fileno()).st_size
        except OSError as exc:
            raise CatalogueError(
                f"{self.path} cannot be written: {exc.strerror or exc}; "
                "free some disk space, or set HF_HOME to a folder on another disk"
            ) from exc
        self._take(chunk)
        if length != self.done_bytes:
            raise CatalogueError(
                f"another process writes to {self.path} at the same time, and this file system does not lock; "
                "wait for it and try again"
            )
        self._report()

    def restart(self) -> None:
        """Forgets all that has come."""
        assert self._file is not None
        self._file.truncate(0)
        self.done_bytes = self.resumed_bytes = 0
        self._digest = self._new_digest()

    def check(self) -> None:
        """Raises _WrongContent if the digest is not the announced one; puts the bytes on the disk."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        if self._digest is not None and self._digest.hexdigest() != self.source.etag:
            raise _WrongContent(
                f"has the {self._digest.name} {self._digest.hexdigest()}, announced is {self.source.etag}"
            )

    def tell_what_is_kept(self, tell: Tell, why: BaseException) -> None:
        """One line after a break that ends the program."""
        if self.done_bytes and isinstance(why, KeyboardInterrupt | Exception):
            of = f"{format_size(self.done_bytes)} of {format_size(self.source.size_bytes)}"
            tell(f"{of} of {self.source.path} are kept; the same command goes on from there")

    def _take(self, chunk: bytes) -> None:
        self.done_bytes += len(chunk)
        if self._digest is not None:
            self._digest.update(chunk)

    def _report(self) -> None:
        name = self.source.path.rpartition("/")[2]
        self.on_bytes(Transfer(name, self.done_bytes, self.source.size_bytes, self.resumed_bytes))

    def _new_digest(self) -> Any:  # noqa: ANN401 - hashlib's type has no name
        """LFS files are named by their sha256; small ones by git's sha1 of a blob; other servers' names say nothing."""
        etag = self.source.etag
        if re.fullmatch("[0-9a-f]{64}", etag):
            return hashlib.sha256()
        if re.fullmatch("[0-9a-f]{40}", etag):
            return hashlib.sha1(b"blob %d\0" % self.source.size_bytes, usedforsecurity=False)
        return None


def _receive(source: _Source, partial: PartialFile, tell: Tell) -> None:
    """Fetches until all is there; goes on after breaks as long as new attempts bring something."""
    waits = iter(RETRY_WAITS_S)
    while not partial.is_complete:
        before = partial.done_bytes
        try:
            _request(source, partial)
        except (_Interrupted, http_error()) as exc:
            if not _is_passing(exc):
                raise translate(exc, source.repo) from exc
            if partial.done_bytes > before:
                waits = iter(RETRY_WAITS_S)
            wait_s = next(waits, None)
            if wait_s is None:
                raise CatalogueError(
                    f"the connection for {source.path} broke off and does not come back ({_reason(exc)}); "
                    "check the network and try again"
                ) from exc
            wait_s = max(wait_s, _retry_after_s(exc))
            tell(f"{_reason(exc)} at {format_size(partial.done_bytes)}; going on in {wait_s:g} s")
            time.sleep(wait_s)


def _request(source: _Source, partial: PartialFile) -> None:
    """One request for all that is missing."""
    from huggingface_hub import constants, get_session, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

    start = partial.done_bytes
    headers = (
        build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    )
    timeout_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", source.url, headers=headers, timeout=timeout_s) as response:
        if response.status_code == 416:
            raise _WrongContent(f"ends before the {source.size_bytes} bytes announced")
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        _check_range(response.status_code, response.headers.get("Content-Range", ""), partial)
        for chunk in response.iter_bytes():
            partial.write(chunk)
    if not partial.is_complete:
        raise _Interrupted("the server ended the file early")


def _check_range(status: int, content_range: str, partial: PartialFile) -> None:
    """Raises _Interrupted for an answer whose bytes do not belong at the partial file's end."""
    if status == 200:
        if partial.done_bytes:
            partial.restart()  # a server without ranges
        return
    start = re.match(r"bytes (\d+)-", content_range)
    if status != 206 or start is None or int(start[1]) != partial.done_bytes:
        raise _Interrupted(f"the server answered {status} {content_range}".strip())


def _is_passing(exc: Exception) -> bool:
    """Whether the same request may do better in a moment."""
    status = status_of(exc)
    return status is None or status in (408, 429) or status >= 500


def _retry_after_s(exc: Exception) -> float:
    response = getattr(exc, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdigit() else 0.0


def _reason(exc: Exception) -> str:
    if (status := status_of(exc)) is not None:
        return f"the server answered {status}"
    text = (str(exc).strip().splitlines() or [""])[0].partition(" (")[0]
    return text[:120] or type(exc).__name__
