"""The SQLite file behind an index. Knows rows and arrays, not what they mean.

One transaction brings a new state in, so a crash or a second process never sees half of one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import RetrievalError
from edge.tools.retrieval.catalogue import CatalogueTool, tool_of_row
from edge.tools.retrieval.lexical import LexicalIndex

SCHEMA_VERSION = "1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tool (
  position INTEGER PRIMARY KEY, id TEXT NOT NULL, digest BLOB NOT NULL, row TEXT NOT NULL, terms BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS vector (
  model TEXT NOT NULL, digest BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (model, digest));
"""
_ARRAYS = {"data": np.float32, "indices": np.int32, "indptr": np.int32}
_BUSY_TIMEOUT_S = 30.0  # another process builds the same index


@dataclass(frozen=True, slots=True)
class StoredTool:
    """A tool with its digest and its terms' ids."""

    entry: CatalogueTool
    digest: bytes
    terms: NDArray[np.int32]


class Storage:
    """One index file, or memory. rules: names how terms are made; a file made by others is emptied."""

    def __init__(self, path: Path | None, *, rules: str = "") -> None:
        self._identity = f"{SCHEMA_VERSION} {rules}"
        self.n_removed = 0
        self._pinned: list[bytes] = []
        self._connection = _opened(path, self._identity)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """One state of the file for all that is read inside; another process may replace it at any time."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    def pin(self) -> None:
        """Notes which tools there are, so that `entries` gives these and no others."""
        self._pinned = self.digests()

    def source(self) -> str:
        """What `replace` was told the tools came from; empty before."""
        value = self._meta("source")
        return value.decode() if value else ""

    def vocabulary(self) -> dict[str, int]:
        """Terms and their ids."""
        value = self._meta("vocabulary")
        return {term: n for n, term in enumerate(value.decode().split("\n"))} if value else {}

    def known_terms(self) -> dict[bytes, NDArray[np.int32]]:
        """The term ids of each tool, by its digest."""
        rows = self._connection.execute("SELECT digest, terms FROM tool")
        return {digest: np.frombuffer(blob, np.int32) for digest, blob in rows}

    def lexical(self) -> LexicalIndex | None:
        """The BM25 matrix, None where none is kept."""
        blobs = {name: self._meta(name) for name in _ARRAYS}
        if any(blob is None for blob in blobs.values()):
            return None
        arrays = {name: np.frombuffer(blobs[name] or b"", kind) for name, kind in _ARRAYS.items()}
        return LexicalIndex(self.vocabulary(), arrays, self.n_tools())

    def n_tools(self) -> int:
        """How many tools there are."""
        return int(self._connection.execute("SELECT count(*) FROM tool").fetchone()[0])

    def entries(self, positions: Sequence[int]) -> list[CatalogueTool]:
        """The tools at these places."""
        found = []
        for position in positions:
            where = (position, self._pinned[position])
            row = self._connection.execute(
                "SELECT row FROM tool WHERE position = ? AND digest = ?", where
            ).fetchone()
            if row is None:
                raise RetrievalError("the index was replaced by another process while in use; open it again")
            found.append(tool_of_row(json.loads(row[0]), f"tool {position} of the index"))
        return found

    def ids(self) -> list[str]:
        """The tools' ids in their order."""
        return [row[0] for row in self._connection.execute("SELECT id FROM tool ORDER BY position")]

    def digests(self) -> list[bytes]:
        """The tools' digests in their order."""
        return [row[0] for row in self._connection.execute("SELECT digest FROM tool ORDER BY position")]

    def vectors(self, model: str) -> dict[bytes, NDArray[np.float16]]:
        """The embeddings that a model made, by the tool's digest."""
        rows = self._connection.execute("SELECT digest, value FROM vector WHERE model = ?", (model,))
        return {digest: np.frombuffer(blob, np.float16) for digest, blob in rows}

    def add_vectors(self, model: str, digests: Sequence[bytes], vectors: NDArray[np.float16]) -> None:
        """Keeps embeddings at once: making them takes long, and a broken-off run need not begin anew."""
        rows = [(model, digest, vector.tobytes()) for digest, vector in zip(digests, vectors, strict=True)]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vector VALUES (?, ?, ?)", rows)

    def replace(self, tools: Sequence[StoredTool], index: LexicalIndex, *, source: str) -> None:
        """Makes the file that of these tools."""
        old = set(self.digests())
        self._pinned = [tool.digest for tool in tools]
        rows = [_row(position, tool) for position, tool in enumerate(tools)]
        meta = {
            name: np.ascontiguousarray(index.arrays[name], kind).tobytes() for name, kind in _ARRAYS.items()
        }
        meta["vocabulary"] = "\n".join(index.vocabulary).encode("utf-8", "surrogatepass")
        meta["source"] = source.encode()
        with self._connection:
            self._connection.execute("DELETE FROM tool")
            self._connection.executemany("INSERT INTO tool VALUES (?, ?, ?, ?, ?)", rows)
            self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
            self._connection.execute("DELETE FROM vector WHERE digest NOT IN (SELECT digest FROM tool)")
        self.n_removed = len(old - {tool.digest for tool in tools})

    def _meta(self, key: str) -> bytes | None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Closes the file. Safe to call twice."""
        self._connection.close()


def _row(position: int, tool: StoredTool) -> tuple[int, str, bytes, str, bytes]:
    text = json.dumps(tool.entry.to_row(), default=dict)  # ASCII: a lone surrogate is no text for SQLite
    return position, tool.entry.id, tool.digest, text, tool.terms.tobytes()


def _opened(path: Path | None, identity: str) -> sqlite3.Connection:
    if path is None:
        return _prepared(sqlite3.connect(":memory:"), identity)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _prepared(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S), identity)
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise
            path.unlink()  # not a database, or a damaged one; everything in it can be made again
            return _prepared(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S), identity)
    except (OSError, sqlite3.Error) as exc:
        raise RetrievalError(f"the index {path} cannot be kept: {exc}; choose another cache folder") from None


def _prepared(connection: sqlite3.Connection, identity: str) -> sqlite3.Connection:
    """The connection with its tables, empty where another version had filled them."""
    try:
        connection.executescript(_SCHEMA)
        found = connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
        if found is None or found[0] != identity.encode():
            with connection:
                for table in ("meta", "tool", "vector"):
                    connection.execute(f"DELETE FROM {table}")
                connection.execute("INSERT INTO meta VALUES ('identity', ?)", (identity.encode(),))
    except BaseException:
        with suppress(sqlite3.Error):
            connection.close()
        raise
    return connection
