"""How much memory the machine has, how much is free now, and whether it is under pressure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from profiles.reading import Reading, Tree, unknown

KIB = 1024


@dataclass(frozen=True, slots=True)
class MemoryState:
    """The machine's memory, in bytes; pressure in percent of the last ten seconds."""

    total_bytes: Reading[int]
    available_bytes: Reading[int]
    swap_total_bytes: Reading[int]
    swap_free_bytes: Reading[int]
    zram_bytes: Reading[int]
    pressure_some_percent: Reading[float]
    pressure_full_percent: Reading[float]


def read_memory(tree: Tree) -> MemoryState:
    """From /proc/meminfo, /proc/pressure/memory and the zram devices; psutil where there is no /proc."""
    fields = tree.fields("proc/meminfo")
    total, available = _kib(fields, "MemTotal"), _kib(fields, "MemAvailable")
    if tree.is_this_machine and not fields.known:
        total, available = _ask_psutil("total"), _ask_psutil("available")
    return MemoryState(
        total_bytes=total,
        # Before Linux 3.14 there is no MemAvailable; free plus page cache is what it estimates.
        available_bytes=available.or_else(_free_and_cached(fields)),
        swap_total_bytes=_kib(fields, "SwapTotal"),
        swap_free_bytes=_kib(fields, "SwapFree"),
        zram_bytes=_read_zram(tree),
        pressure_some_percent=_read_pressure(tree, "some"),
        pressure_full_percent=_read_pressure(tree, "full"),
    )


def _kib(fields: Reading[dict[str, str]], name: str) -> Reading[int]:
    line = fields.map(lambda found: found.get(name), f"there is no {name}")
    line = Reading(line.value, f"{fields.source} {name}", line.reason)
    return line.map(lambda text: _parse_kib(text))


def _parse_kib(text: str) -> int | None:
    match = re.fullmatch(r"(\d{1,15})(?: kB)?", text, re.ASCII)
    return int(match[1]) * KIB if match else None


def _free_and_cached(fields: Reading[dict[str, str]]) -> Reading[int]:
    free, cached = _kib(fields, "MemFree"), _kib(fields, "Cached")
    if free.value is None or cached.value is None:
        return unknown(fields.source, free.reason or cached.reason)
    return Reading(free.value + cached.value, f"{fields.source} MemFree + Cached")


def _ask_psutil(name: str) -> Reading[int]:
    import psutil

    return Reading(int(getattr(psutil.virtual_memory(), name)), f"psutil virtual_memory().{name}")


def _read_zram(tree: Tree) -> Reading[int]:
    """Size of the compressed swap devices together; it is memory, and no room for a model."""
    found = tree.fields("proc/swaps")
    devices = tree.names("sys/block", r"zram\d+")
    if not devices:
        return Reading(0, "/sys/block", "")
    sizes = [tree.number(f"sys/block/{name}/disksize") for name in devices]
    known = [size.value for size in sizes if size.value is not None]
    if not known:
        return unknown(sizes[0].source, sizes[0].reason)
    used = found.map(lambda names: [name for name in names if "zram" in name])
    return Reading(sum(known), f"{sizes[0].source}" + (", /proc/swaps" if used.value else ""))


def _read_pressure(tree: Tree, kind: str) -> Reading[float]:
    """avg10 of the stall information. Kernels need CONFIG_PSI, some boards psi=1 on the command line."""

    def avg10(text: str) -> float | None:
        match = re.search(rf"^{kind} avg10=(\d+(?:\.\d+)?)", text, re.MULTILINE | re.ASCII)
        return float(match[1]) if match else None

    reading = tree.text("proc/pressure/memory")
    named = Reading(reading.value, f"{reading.source} {kind} avg10", reading.reason)
    return named.map(avg10)


def largest_processes(tree: Tree, *, n: int = 3) -> list[tuple[str, int]]:
    """Names and resident bytes of the processes that hold the most memory, largest first."""
    found: list[tuple[str, int]] = []
    for pid in tree.names("proc", r"\d+"):
        fields = tree.fields(f"proc/{pid}/status").value or {}
        resident = _parse_kib(fields.get("VmRSS", ""))
        if resident:
            found.append((fields.get("Name", pid), resident))
    return sorted(found, key=lambda item: -item[1])[:n]
