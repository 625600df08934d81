"""Prompt states on disk: what was computed for a system text and its tools outlives the process.

A state belongs to one model file (by its digest), one way of holding keys and values, the exact token ids and this
module's version; all of that is in the file's name, and again inside. A file is written beside and renamed, carries
its size and a checksum, and goes to llama.cpp only when all of it is right: a damaged one would abort the process.
The one used longest ago goes first when the folder grows too large. Processes may share a folder.

A state holds the prompt that it was made from: the folder is the user's alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from io import BufferedReader, BufferedWriter
from pathlib import Path
from queue import Full, Queue
from threading import Thread

import numpy as np

from edge.engine.context import ContextPlan
from edge.engine.file_digest import FileDigest
from edge.engine.slot import StateBytes
from edge.errors import RequestError

logger = logging.getLogger("edge.engine")

STATE_VERSION = 1
_MAGIC = b"edge-kv\n"
_HEADER = struct.Struct(
    "<8sIIQ32s32s"
)  # magic, version, tokens, bytes of state, key, checksum of tokens and state
_SUFFIX, _TEMPORARY = ".state", ".part"
_STALE_S = 3600.0  # a temporary file of a process that died
_SPARE_DISK_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCacheOptions:
    """Where states are kept. max_bytes: of all of them. min_tokens: what is shorter is not worth a file."""

    folder: Path
    max_bytes: int = 2 << 30
    min_tokens: int = 128

    def __post_init__(self) -> None:
        if self.max_bytes < 1 << 20:
            raise RequestError(f"the state cache may hold {self.max_bytes} bytes; at least 1 MiB is needed")


class StateCache:
    """States of one model under one plan. Loading is for one thread at a time; writing goes on beside it."""

    def __init__(self, options: StateCacheOptions, model_path: Path, plan: ContextPlan) -> None:
        self._options = options
        self._digest = FileDigest(model_path, options.folder / "digests")
        self._how = [STATE_VERSION, metadata.version("llama-cpp-python"), plan.kv_type, plan.flash_attn]
        self.n_hits = self.n_misses = self.n_bytes = 0
        self._jobs: Queue[tuple[list[int], StateBytes] | None] = Queue(maxsize=1)
        self._writer: Thread | None = None

    def wants(self, tokens: Sequence[int]) -> bool:
        """Whether a state of these tokens should be saved."""
        if len(tokens) < self._options.min_tokens:
            return False
        path = self._path(tokens)
        return path is None or not path.exists()

    def load(self, tokens: Sequence[int]) -> StateBytes | None:
        """The state of exactly these tokens; None where there is none. A file that is not what it should be goes."""
        if len(tokens) < self._options.min_tokens:
            return None
        path = self._path(tokens)
        state = None if path is None else self._read(path, tokens)
        if state is None:
            self.n_misses += 1
            return None
        self.n_hits += 1
        return state

    def reject(self, tokens: Sequence[int]) -> None:
        """Removes a state that llama.cpp did not take."""
        self.n_hits, self.n_misses = self.n_hits - 1, self.n_misses + 1
        if (path := self._path(tokens)) is not None:
            _remove(path)

    def save(self, tokens: Sequence[int], state: StateBytes) -> None:
        """Writes a state in the background; does nothing while another is being written."""
        if self._writer is None:
            self._writer = Thread(target=self._write_all, name="edge-state-cache", daemon=True)
            self._writer.start()
        try:
            self._jobs.put_nowait((list(tokens), state))
        except Full:
            logger.info("a state of %d tokens is not kept: another is being written", len(tokens))

    def close(self) -> None:
        """Waits until what is being written is on disk. Safe to call twice."""
        if self._writer is not None:
            self._jobs.put(None)
            self._writer.join()
            self._writer = None

    def _key(self, digest: str, tokens: Sequence[int]) -> bytes:
        what = json.dumps([*self._how, digest]).encode()
        return hashlib.blake2b(what + b"\0" + _token_bytes(tokens), digest_size=32).digest()

    def _path(self, tokens: Sequence[int]) -> Path | None:
        """The state's file; None while the model file's digest is not known."""
        digest = self._digest.known()
        return None if digest is None else self._options.folder / (self._key(digest, tokens).hex() + _SUFFIX)

    def _read(self, path: Path, tokens: Sequence[int]) -> StateBytes | None:
        try:
            with path.open("rb") as file:
                state = _read_state(file, bytes.fromhex(path.stem), tokens)
            if state is not None:
                os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, MemoryError) as exc:
            logger.warning("the state %s cannot be read: %s", path.name, exc)
            return None
        if state is None:
            logger.warning("the state %s is damaged or foreign and is removed", path.name)
            _remove(path)
        return state

    def _write_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._write(*job)
            except OSError as exc:
                logger.warning("a state could not be written: %s", exc)
            except Exception:
                logger.exception("a state could not be written")
            del job  # it may be 100 MB

    def _write(self, tokens: list[int], state: StateBytes) -> None:
        folder = self._options.folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = self._digest.compute()
        n_bytes = len(state) + 4 * len(tokens) + _HEADER.size
        if digest is None or n_bytes > self._options.max_bytes:
            return
        if shutil.disk_usage(folder).free < n_bytes + _SPARE_DISK_BYTES:
            logger.warning("a state of %d bytes is not kept: the disk is nearly full", n_bytes)
            return
        key = self._key(digest, tokens)
        if (folder / (key.hex() + _SUFFIX)).exists():
            return
        descriptor, name = tempfile.mkstemp(suffix=_TEMPORARY, dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _write_state(file, key, tokens, state)
            # Not synced to the disk: what a power cut leaves is found out by its checksum.
            Path(name).replace(folder / (key.hex() + _SUFFIX))
        except BaseException:
            _remove(Path(name))
            raise
        self._make_room(folder)

    def _make_room(self, folder: Path) -> None:
        """Removes the states used longest ago until the rest is small enough, and what dead processes left."""
        states = []
        for path in folder.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # another process was here
            if path.suffix == _SUFFIX:
                states.append((stat.st_mtime_ns, stat.st_size, path))
            elif path.suffix == _TEMPORARY and time.time() - stat.st_mtime > _STALE_S:
                _remove(path)
        self.n_bytes = sum(size for _, size, _ in states)
        for _, size, path in sorted(states):
            if self.n_bytes <= self._options.max_bytes:
                return
            _remove(path)
            self.n_bytes -= size


def _token_bytes(tokens: Sequence[int]) -> bytes:
    return np.asarray(tokens, dtype="<i4").tobytes()


def _checksum(tokens: bytes, state: StateBytes) -> bytes:
    checksum = hashlib.blake2b(tokens, digest_size=32)
    checksum.update(memoryview(state))
    return checksum.digest()


def _write_state(file: BufferedWriter, key: bytes, tokens: Sequence[int], state: StateBytes) -> None:
    ids = _token_bytes(tokens)
    checksum = _checksum(ids, state)
    file.write(_HEADER.pack(_MAGIC, STATE_VERSION, len(tokens), len(state), key, checksum))
    file.write(ids)
    file.write(memoryview(state))


def _read_state(file: BufferedReader, key: bytes, tokens: Sequence[int]) -> StateBytes | None:
    """The state in a file; None unless all of it is as it was written, for this key and these tokens."""
    header = file.read(_HEADER.size)
    if len(header) != _HEADER.size:
        return None
    magic, version, n_tokens, n_bytes, file_key, checksum = _HEADER.unpack(header)
    if (magic, version, n_tokens, file_key) != (_MAGIC, STATE_VERSION, len(tokens), key):
        return None
    ids = _token_bytes(tokens)
    if os.fstat(file.fileno()).st_size != _HEADER.size + len(ids) + n_bytes or file.read(len(ids)) != ids:
        return None
    state: StateBytes = (ctypes.c_uint8 * n_bytes)()
    if file.readinto(memoryview(state)) != n_bytes or _checksum(ids, state) != checksum:
        return None
    return state


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        logger.warning("%s cannot be removed: %s", path.name, exc)
