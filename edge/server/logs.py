"""The server's log on standard error: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class _Formatter(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", None) or {"event": record.getMessage()}
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        if self._as_json:
            return json.dumps({"time": when, "level": record.levelname.lower(), **facts})
        return f"{when} {record.levelname.lower()} " + " ".join(f"{k}={v}" for k, v in facts.items())


def set_up_server_log(*, as_json: bool) -> None:
    """Sends what `edge.server` logs to standard error; replaces what an earlier call set up."""
    log = logging.getLogger("edge.server")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(as_json=as_json))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
