"""The server's log on standard error: lines for people, for journald, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# syslog's numbers, which journald takes from the beginning of a line: `journalctl -p warning` finds them.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class _Formatter(logging.Formatter):
    def __init__(self, *, as_json: bool, to_journal: bool) -> None:
        super().__init__()
        self._as_json, self._to_journal = as_json, to_journal

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", None) or {"event": record.getMessage()}
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        level = record.levelname.lower()
        if self._as_json:
            return _prefix(record, self._to_journal) + json.dumps({"time": when, "level": level, **facts})
        line = " ".join(f"{k}={v}" for k, v in facts.items())
        return _prefix(record, True) + line if self._to_journal else f"{when} {level} {line}"


def _prefix(record: logging.LogRecord, to_journal: bool) -> str:
    number = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
    return f"<{number}>" if to_journal else ""


def set_up_server_log(*, as_json: bool, to_journal: bool = False) -> None:
    """Sends what `edge.server` logs to standard error; replaces what an earlier call set up.

    to_journal: standard error is journald's, which keeps times and levels itself.
    """
    log = logging.getLogger("edge.server")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(as_json=as_json, to_journal=to_journal))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
