"""What `/health` and `/metrics` are told of the device: `profiles` reads and judges it, the server shows it."""

from __future__ import annotations

from pathlib import Path

from edge.server.options import DeviceReading
from profiles.health import read_health, troubles


def read_device(root: Path = Path("/")) -> DeviceReading:
    """What the device says now; reads a few dozen small files of /proc and /sys."""
    import psutil

    health = read_health(root)
    throttled = health.heat.throttled.value
    return DeviceReading(
        temperature_c=health.heat.hottest_celsius.value,
        throttled=None if throttled is None else bool(throttled) and not throttled.startswith("earlier"),
        power_w=health.power.draw_watts.value,
        power_mode=health.board.power_mode.value or health.power.governor.value,
        memory_available_bytes=health.available_bytes,
        memory_pressure_percent=health.memory.pressure_full_percent.value,
        disk_wear_percent=health.disk.wear_percent.value,
        disk_written_bytes=health.disk.written_bytes.value,
        disk_errors=health.disk.errors.value,
        resident_bytes=psutil.Process().memory_info().rss,
        troubles=troubles(health),
    )
