"""create_calendar_event: appends an event to an iCalendar file (RFC 5545) of the workspace."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, date, datetime, time, timedelta

from edge.tools.builtin.clock import zone_named
from edge.tools.executable import Arguments, CallContext, ToolFailure
from edge.tools.workspace import Workspace

_HEAD = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//smoltools-edge//EN\r\n"
_END = "END:VCALENDAR\r\n"
_MAX_FILE_BYTES = 16 << 20


def create_calendar_event(workspace: Workspace, file: str, arguments: Arguments, context: CallContext) -> str:
    """Writes the event; says when it is and in which file."""
    whole_day, start, end = _times(arguments)
    form = _day if whole_day else _utc
    kind = ";VALUE=DATE" if whole_day else ""
    lines = [
        "BEGIN:VEVENT",
        f"UID:{uuid.uuid4()}",
        f"DTSTAMP:{_utc(datetime.now(UTC))}",
        f"DTSTART{kind}:{form(start)}",
        f"DTEND{kind}:{form(end)}",
        f"SUMMARY:{_escaped(arguments['title'])}",
    ]
    for name in ("location", "description"):
        if arguments.get(name):
            lines.append(f"{name.upper()}:{_escaped(arguments[name])}")
    lines.append("END:VEVENT")
    event = "".join(_folded(line) for line in lines)
    workspace.replace_file(file, (_existing(workspace, file) + event + _END).encode())
    shown = start.date().isoformat() if whole_day else f"{start.isoformat()} to {end.isoformat()}"
    return f"added {arguments['title']!r}, {shown}, to {file}"


def _times(arguments: Arguments) -> tuple[bool, datetime, datetime]:
    start_text, end_text = str(arguments["start"]).strip(), str(arguments.get("end") or "").strip()
    whole_day = _is_day(start_text)
    zone = zone_named(arguments.get("timezone"))
    start = _moment("start", start_text)
    start = start if start.tzinfo or whole_day else start.replace(tzinfo=zone).astimezone(zone)
    if not end_text:
        return whole_day, start, start + (timedelta(days=1) if whole_day else timedelta(hours=1))
    end = _moment("end", end_text)
    if whole_day and _is_day(end_text):
        end += timedelta(days=1)  # a person's last day is iCalendar's day before the end
    elif not end.tzinfo and not whole_day:
        end = end.replace(tzinfo=zone).astimezone(zone)
    if _is_day(end_text) != whole_day:
        raise ToolFailure("start and end must both be days or both have a time")
    if end <= start:
        raise ToolFailure(f"the end {end_text} is not after the start {start_text}")
    return whole_day, start, end


def _is_day(text: str) -> bool:
    return len(text) == 10


def _moment(name: str, text: str) -> datetime:
    try:
        return (
            datetime.combine(date.fromisoformat(text), time())
            if _is_day(text)
            else datetime.fromisoformat(text)
        )
    except ValueError:
        raise ToolFailure(f"{name} is {text!r}; ISO 8601 is needed, like 2026-05-04T15:00") from None


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _day(moment: datetime) -> str:
    return moment.strftime("%Y%m%d")


def _escaped(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\\n")
    return "".join(char for char in text if char >= " " or char == "\t")


def _folded(line: str) -> str:
    """The line in pieces of at most 75 bytes, as RFC 5545 3.1 wants it."""
    pieces: list[bytes] = []
    piece = b""
    for char in line:
        data = char.encode("utf-8", "replace")
        if len(piece) + len(data) > (75 if not pieces else 74):
            pieces.append(piece)
            piece = b""
        piece += data
    return b"\r\n ".join([*pieces, piece]).decode() + "\r\n"


def _existing(workspace: Workspace, file: str) -> str:
    """The calendar so far, without its end."""
    try:
        with workspace.open_file(file) as fd, os.fdopen(os.dup(fd), "rb") as stream:
            text = stream.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
    except ToolFailure as exc:
        if str(exc).startswith("there is no "):
            return _HEAD
        raise
    head, end, rest = text.rpartition("END:VCALENDAR")
    if not end or rest.strip() or not head.lstrip("\ufeff").startswith("BEGIN:VCALENDAR"):
        raise ToolFailure(f"{file} is not an iCalendar file; nothing was added")
    return head
