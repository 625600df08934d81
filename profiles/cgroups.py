"""Limits that a container or a service sets on this process: memory and processor time, cgroups v1 and v2.

A limit can stand on the process's own group or on any group above it; the tightest one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from profiles.reading import Reading, Tree, parse_cpu_list, unknown

_UNLIMITED_BYTES = 1 << 60  # v1 writes 2^63 rounded down to pages for "no limit"
_NOT_LIMITED = "no limit is set"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the control groups allow. available_bytes: what is left under the memory limit now."""

    memory_bytes: Reading[int]
    available_bytes: Reading[int]
    cpu_quota: Reading[float]
    cpus: Reading[frozenset[int]]


@dataclass(frozen=True, slots=True)
class _Files:
    """Names of the files that hold the same fact in each version."""

    limits: tuple[str, ...]
    usage: str
    file_pages: tuple[str, ...]


_V2 = _Files(("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file"))
_V1 = _Files(
    ("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
)


def read_limits(tree: Tree) -> Limits:
    """The tightest limits above this process, from /proc/self/cgroup and /sys/fs/cgroup."""
    groups = tree.text("proc/self/cgroup")
    own = _own_groups(groups.value or "")
    memory = [*_memory_limits(tree, _folders(tree, own, "memory", v2=False), _V1)]
    memory += _memory_limits(tree, _folders(tree, own, "", v2=True), _V2)
    quotas = [*_quotas_v1(tree, _folders(tree, own, "cpu", v2=False))]
    quotas += _quotas_v2(tree, _folders(tree, own, "", v2=True))
    where = "/sys/fs/cgroup"
    why = _NOT_LIMITED if groups.known else f"{groups.source}: {groups.reason}"
    return Limits(
        memory_bytes=min((m[0] for m in memory), key=_value, default=unknown(where, why)),
        available_bytes=min((m[1] for m in memory), key=_value, default=unknown(where, why)),
        cpu_quota=min(quotas, key=_value, default=unknown(where, why)),
        cpus=_cpuset(tree, own),
    )


def _value(reading: Reading[int] | Reading[float]) -> float:
    return float(reading.value if reading.value is not None else "inf")


def _own_groups(text: str) -> dict[str, str]:
    """Controller -> path of the process's group. The empty name is the unified (v2) hierarchy."""
    own: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            for controller in parts[1].split(","):
                own.setdefault(controller, parts[2])
    return own


def _folders(tree: Tree, own: dict[str, str], controller: str, *, v2: bool) -> list[str]:
    """Folders from the process's group up to the mount, those that exist; innermost first.

    Inside a container the path often names the host's view, of which only the end of it is mounted here: then
    nothing but the mount itself is found, and that is the container's own group.
    """
    mounts = ("sys/fs/cgroup", "sys/fs/cgroup/unified") if v2 else (f"sys/fs/cgroup/{controller}",)
    if not v2 and controller == "cpu":
        mounts = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")
    path = PurePosixPath(own.get(controller, "/").lstrip("/"))
    if ".." in path.parts:
        path = PurePosixPath()
    below = [*([path, *path.parents] if path.parts else [PurePosixPath()])]
    names = [str(PurePosixPath(mount) / part) for mount in mounts for part in below]
    return [name for name in dict.fromkeys(names) if tree.exists(name)]


def _memory_limits(
    tree: Tree, folders: list[str], files: _Files
) -> Iterator[tuple[Reading[int], Reading[int]]]:
    for folder in folders:
        for name in files.limits:
            limit = tree.text(f"{folder}/{name}").map(_parse_limit)
            if limit.value is not None:
                yield limit, _left_under(tree, folder, limit, files)


def _parse_limit(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    value = int(text[:20])
    return value if 0 < value < _UNLIMITED_BYTES else None


def _left_under(tree: Tree, folder: str, limit: Reading[int], files: _Files) -> Reading[int]:
    """Limit minus what is used, page cache counted as free: the kernel drops it before it kills anything."""
    usage = tree.number(f"{folder}/{files.usage}")
    if usage.value is None or limit.value is None:
        return Reading(limit.value, limit.source, f"usage unknown: {usage.reason}")
    stat = tree.fields(f"{folder}/memory.stat").value or {}
    cached = sum(int(stat[name]) for name in files.file_pages if stat.get(name, "").isdecimal())
    left = limit.value - max(0, usage.value - cached)
    return Reading(max(0, left), f"{limit.source}, {usage.source}, memory.stat")


def _quotas_v2(tree: Tree, folders: list[str]) -> Iterator[Reading[float]]:
    def parse(text: str) -> float | None:
        quota, _, period = text.partition(" ")
        return None if quota == "max" else _ratio(int(quota), int(period or 100_000))

    return (r for folder in folders if (r := tree.text(f"{folder}/cpu.max").map(parse)).known)


def _quotas_v1(tree: Tree, folders: list[str]) -> Iterator[Reading[float]]:
    for folder in folders:
        quota = tree.number(f"{folder}/cpu.cfs_quota_us")
        period = tree.number(f"{folder}/cpu.cfs_period_us").value
        cores = quota.map(lambda value, period=period: _ratio(value, period or 100_000))  # type: ignore[misc]
        if cores.known:
            yield cores


def _ratio(quota: int, period: int) -> float | None:
    return quota / period if quota > 0 and period > 0 else None


def _cpuset(tree: Tree, own: dict[str, str]) -> Reading[frozenset[int]]:
    files: tuple[tuple[str, bool, Callable[[str], str]], ...] = (
        ("", True, lambda folder: f"{folder}/cpuset.cpus.effective"),
        ("cpuset", False, lambda folder: f"{folder}/cpuset.effective_cpus"),
        ("cpuset", False, lambda folder: f"{folder}/cpuset.cpus"),
    )
    for controller, v2, name in files:
        for folder in _folders(tree, own, controller, v2=v2):
            cpus = tree.text(name(folder)).map(parse_cpu_list)
            if cpus.known:
                return cpus
    return unknown("/sys/fs/cgroup", _NOT_LIMITED)
