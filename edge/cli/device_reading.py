"""What `/health` and `/metrics` are told of the device: `profiles` reads it, the server shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.server.options import DeviceReading
from profiles.cgroups import read_limits
from profiles.heat import Heat, read_heat
from profiles.memory import MemoryState, read_memory
from profiles.reading import Tree

MIB = 1 << 20
_PRESSURE_PERCENT = 1.0  # of the last ten seconds, in which every task waited for memory
_LITTLE_FREE_BYTES = 64 * MIB
_HWMON = "sys/class/hwmon"


def read_device(root: Path = Path("/")) -> DeviceReading:
    """What the device says now; reads a few files of /proc and /sys."""
    import psutil

    tree = Tree(root)
    memory, heat = read_memory(tree), read_heat(tree)
    free = [memory.available_bytes.value, read_limits(tree).available_bytes.value]
    available_bytes = min((n for n in free if n is not None), default=None)
    return DeviceReading(
        temperature_c=heat.hottest_celsius.value,
        power_w=_power_w(tree),
        memory_available_bytes=available_bytes,
        resident_bytes=psutil.Process().memory_info().rss,
        troubles=tuple(_troubles(memory, heat, available_bytes)),
    )


def _troubles(memory: MemoryState, heat: Heat, available_bytes: int | None) -> Iterator[str]:
    if available_bytes is not None and available_bytes < _LITTLE_FREE_BYTES:
        yield f"memory: only {available_bytes // MIB} MiB are free"
    waited = memory.pressure_full_percent.value
    if waited is not None and waited > _PRESSURE_PERCENT:
        yield f"memory: all tasks waited for it {waited:g} % of the last ten seconds"
    throttled = heat.throttled.value
    if throttled and not throttled.startswith("earlier"):
        yield f"slowed down: {throttled}"


def _power_w(tree: Tree) -> float | None:
    """What the whole board draws, by its own meter: Jetson's `VDD_IN` rail, in mV and mA."""
    for meter in tree.names(_HWMON, r"hwmon\d+"):
        for n in range(1, 5):
            where = f"{_HWMON}/{meter}"
            if tree.text(f"{where}/in{n}_label").value in ("VDD_IN", "VIN_SYS_5V0"):
                millivolts = tree.number(f"{where}/in{n}_input").value
                milliamperes = tree.number(f"{where}/curr{n}_input").value
                if millivolts is not None and milliamperes is not None:
                    return millivolts * milliamperes / 1e6
    return None
