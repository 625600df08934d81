"""The processor: architecture, features that llama.cpp's kernels use, physical and performance cores."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass

from profiles.reading import Reading, Tree, parse_cpu_list, unknown

_CPUS = "sys/devices/system/cpu"
# What ggml has kernels for; arm's names are the kernel's (`asimddp` is the dot product).
_FEATURES = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cpu:
    """Counts are of cores that are switched on."""

    architecture: Reading[str]
    name: Reading[str]
    features: Reading[tuple[str, ...]]
    n_logical: Reading[int]
    n_physical: Reading[int]
    n_performance: Reading[int]
    n_usable: Reading[int]


def read_cpu(tree: Tree) -> Cpu:
    """From /proc/cpuinfo and /sys/devices/system/cpu; n_usable also from this process's affinity."""
    info = tree.text("proc/cpuinfo")
    features = info.map(_features, "no line of flags or features")
    online = tree.text(f"{_CPUS}/online").map(parse_cpu_list)
    listed = online.or_else(info.map(_listed_processors))
    logical = listed.map(len)
    if tree.is_this_machine and not logical.known:
        logical = Reading(os.cpu_count(), "os.cpu_count()")
    cores = _physical_cores(tree, listed)
    physical = cores.map(lambda found: len(set(found.values())))
    if not physical.known:
        physical = _ask_psutil(tree)
    return Cpu(
        architecture=_architecture(tree, features),
        name=info.map(_name, "no model name").or_else(_part_names(info)),
        features=features,
        n_logical=logical,
        n_physical=physical,
        n_performance=_performance_cores(tree, cores).or_else(physical),
        n_usable=_affinity(tree).or_else(logical),
    )


def _features(text: str) -> tuple[str, ...] | None:
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if match is None:
        return None
    present = set(match[1].split())
    return tuple(name for name in _FEATURES if name in present)


def _listed_processors(text: str) -> frozenset[int] | None:
    return frozenset(int(n) for n in re.findall(r"^processor\s*:\s*(\d{1,5})\s*$", text, re.M | re.A)) or None


def _architecture(tree: Tree, features: Reading[tuple[str, ...]]) -> Reading[str]:
    if tree.is_this_machine:
        return Reading(platform.machine(), "platform.machine()")

    def guess(names: tuple[str, ...]) -> str | None:
        if any(name.startswith("asimd") for name in names):
            return "aarch64"
        return "x86_64" if any(name.startswith(("sse", "avx")) for name in names) else None

    return features.map(guess, "neither x86's flags nor arm's features")


def _name(text: str) -> str | None:
    match = re.search(r"^model name\s*:\s*(\S.*)$", text, re.MULTILINE)
    return match[1].strip() if match else None


# CPU part numbers of Arm Ltd. (implementer 0x41) on the boards that there are profiles for.
_ARM_PARTS = {"0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd42": "Cortex-A78AE", "0xd0c": "Neoverse-N1"}


def _part_names(info: Reading[str]) -> Reading[str]:
    def name(text: str) -> str | None:
        parts = dict.fromkeys(re.findall(r"^CPU part\s*:\s*(0x[0-9a-f]{3})\s*$", text, re.MULTILINE))
        return ", ".join(_ARM_PARTS.get(part, f"Arm part {part}") for part in parts) or None

    return info.map(name, "no model name and no part number")


def _physical_cores(tree: Tree, listed: Reading[frozenset[int]]) -> Reading[dict[int, str]]:
    """Processor number -> an identifier that hyper-threads of one core share."""
    found: dict[int, str] = {}
    for number in sorted(listed.value or ()):
        folder = f"{_CPUS}/cpu{number}/topology"
        siblings = tree.text(f"{folder}/thread_siblings_list").or_else(tree.text(f"{folder}/core_cpus_list"))
        if siblings.value is None:
            return unknown(siblings.source, siblings.reason)
        found[number] = siblings.value
    if not found:
        return unknown(listed.source, listed.reason or "no processors are listed")
    return Reading(found, f"/{_CPUS}/cpu*/topology")


def _ask_psutil(tree: Tree) -> Reading[int]:
    if not tree.is_this_machine:
        return unknown(f"/{_CPUS}", "no topology")
    import psutil

    return Reading(psutil.cpu_count(logical=False), "psutil cpu_count(logical=False)")


def _performance_cores(tree: Tree, cores: Reading[dict[int, str]]) -> Reading[int]:
    """Physical cores of the fastest kind, where there are several kinds."""
    intel = tree.text("sys/devices/cpu_core/cpus").map(parse_cpu_list)
    if intel.value is not None and cores.value is not None:
        fast = {cores.value[n] for n in intel.value if n in cores.value}
        return Reading(len(fast) or None, f"{intel.source}, {cores.source}")
    capacities = {n: tree.number(f"{_CPUS}/cpu{n}/cpu_capacity").value for n in cores.value or ()}
    values = [value for value in capacities.values() if value]
    if not values or len(values) < len(capacities):
        return unknown(f"/{_CPUS}/cpu*/cpu_capacity", "all cores are of one kind, or the kernel does not say")
    # Cores of one kind differ by a few points when their top clocks do.
    n_fast = sum(value >= 0.9 * max(values) for value in values)
    return Reading(n_fast, f"/{_CPUS}/cpu*/cpu_capacity")


def _affinity(tree: Tree) -> Reading[int]:
    if not tree.is_this_machine or not hasattr(os, "sched_getaffinity"):
        return unknown("sched_getaffinity", "not this machine")
    return Reading(len(os.sched_getaffinity(0)), "sched_getaffinity")
