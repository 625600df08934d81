"""get_current_datetime, and time zones for the others."""

from __future__ import annotations

from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from edge.tools.executable import Arguments, CallContext, ToolFailure


def get_current_datetime(arguments: Arguments, context: CallContext) -> str:
    """ISO time with its offset, the weekday, and the zone."""
    zone = zone_named(arguments.get("timezone"))
    now = datetime.now(zone).astimezone(zone)
    return f"{now.isoformat(timespec='seconds')} ({now:%A}, {now.tzname()})"


def zone_named(name: object) -> tzinfo | None:
    """The zone of an IANA name; None, the local one, for no name. Raises ToolFailure with names that are alike."""
    if not isinstance(name, str) or not name.strip():
        return None
    try:
        return ZoneInfo(name.strip())
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ToolFailure(f"there is no time zone {name!r}; {_alike(name)}") from None


def _alike(name: str) -> str:
    wanted = name.strip().lower().replace(" ", "_")
    alike = sorted(zone for zone in available_timezones() if wanted and wanted in zone.lower())
    return f"did you mean {', '.join(alike[:5])}?" if alike else "give an IANA name like Europe/Paris or UTC"
