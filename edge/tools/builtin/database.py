"""database_query: one SQL statement on a SQLite file, read-only unless the configuration allows writing.

Bounded in time, rows and the size of a value. ATTACH, PRAGMAs that change something, and extensions are refused by
SQLite's authorizer, whatever the statement looks like.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass

from edge.tools.executable import Arguments, CallContext, ToolFailure, ToolResult
from edge.tools.text import shown_exactly
from edge.tools.workspace import Workspace

MAX_ROWS, MAX_VALUE_BYTES, MAX_SQL_CHARS = 500, 1_000_000, 100_000
_READING = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
}  # fmt: skip
_NEVER = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}
_PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"}
_FUNCTIONS_REFUSED = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """default: path in the workspace, used when a call names none."""

    default: str | None = None
    writable: bool = False


def database_query(
    workspace: Workspace, options: DatabaseOptions, arguments: Arguments, context: CallContext
) -> ToolResult:
    """Column names and rows as JSON lines, or how many rows were changed."""
    path = arguments.get("database") or options.default
    if not isinstance(path, str):
        raise ToolFailure("no database is configured; name one with the argument database")
    sql = str(arguments["query"])
    if len(sql) > MAX_SQL_CHARS:
        raise ToolFailure(f"the query has {len(sql)} characters; at most {MAX_SQL_CHARS} are allowed")
    values = arguments.get("parameters") or []
    assert isinstance(values, list)
    with closing(_connect(workspace, path, writable=options.writable)) as connection:
        _confine(connection, context, writable=options.writable)
        try:
            cursor = connection.execute(sql, [v for v in values if not isinstance(v, list | dict)])
            result = _rows(cursor)
            connection.commit()
        except sqlite3.Error as exc:
            raise _failure(exc, context) from None
        except sqlite3.Warning as exc:
            raise ToolFailure(f"SQL: {exc}") from None
    return result


def _connect(workspace: Workspace, path: str, *, writable: bool) -> sqlite3.Connection:
    """A connection to the very file that the workspace opened, or a ToolFailure."""
    with workspace.open_file(path) as fd:
        before = os.fstat(fd)
        real = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - a descriptor's own path
        mode = "rw" if writable else "ro"
        uri = f"file:{_quoted(real)}?mode={mode}"
        try:
            connection = sqlite3.connect(uri, uri=True, timeout=2, check_same_thread=False)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        except sqlite3.Error as exc:
            raise ToolFailure(f"{shown_exactly(path)} is not a usable SQLite database: {exc}") from None
        after = os.stat(real, follow_symlinks=False)  # noqa: PTH116
        if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
            connection.close()
            raise ToolFailure(f"{shown_exactly(path)} changed while it was opened")
    return connection


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(path)


def _confine(connection: sqlite3.Connection, context: CallContext, *, writable: bool) -> None:
    def authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
        if action in _NEVER:
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS_REFUSED:
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_PRAGMA:
            return sqlite3.SQLITE_OK if (first or "").lower() in _PRAGMAS else sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK if writable or action in _READING else sqlite3.SQLITE_DENY

    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(authorize)
    connection.set_progress_handler(lambda: int(context.cancelled), 10_000)


def _rows(cursor: sqlite3.Cursor) -> ToolResult:
    if cursor.description is None:
        return ToolResult(f"{max(cursor.rowcount, 0)} rows changed")
    rows = cursor.fetchmany(MAX_ROWS + 1)
    columns = [column[0] for column in cursor.description]
    lines = [_json(columns), *(_json(list(row)) for row in rows[:MAX_ROWS])]
    if len(rows) > MAX_ROWS:
        lines.append(f"[cut: the first {MAX_ROWS} rows; use LIMIT and OFFSET]")
    elif not rows:
        lines.append("(no rows)")
    return ToolResult("\n".join(lines), cut=len(rows) > MAX_ROWS)


def _json(row: list[object]) -> str:
    return json.dumps(
        [f"<{len(v)} bytes>" if isinstance(v, bytes) else v for v in row], ensure_ascii=False, default=str
    )


def _failure(exc: sqlite3.Error, context: CallContext) -> ToolFailure:
    if context.cancelled:
        return ToolFailure("the query took too long and was stopped")
    text = str(exc)
    if "not authorized" in text or "prohibited" in text or "readonly" in text:
        return ToolFailure(f"SQL: {text}; the database can only be read here, by SELECT")
    return ToolFailure(f"SQL: {text}")
