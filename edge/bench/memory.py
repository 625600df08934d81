"""The peak of this process's resident memory. Of what lies in a GPU's own memory nothing is known here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_resident_bytes(status: Path = _STATUS) -> int | None:
    """Since the process began; None where the system does not tell."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return _by_getrusage() if status == _STATUS else None
    return int(found[1]) * 1024 if found else None


def _by_getrusage() -> int | None:
    """macOS counts in bytes. Not asked on Linux, where a process begins with the peak of the one that started it."""
    if sys.platform != "darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
