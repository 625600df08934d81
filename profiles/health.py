"""How the board is doing, judged: one finding a subject, and what to do about it. For `/health`, `/metrics`, `doctor`.

Reads files below a root and starts nothing. What a board does not tell makes no finding, except where the reason is
worth knowing (pressure that the kernel was not asked to measure).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from profiles.board import Board, read_board
from profiles.cgroups import read_limits
from profiles.disk import Disk, read_disk
from profiles.heat import Heat, read_heat
from profiles.memory import MemoryState, read_memory
from profiles.power import Power, read_power
from profiles.reading import Tree

State = Literal["ok", "warn", "fail"]
MIB = 1 << 20

_LITTLE_MIB, _SOME_MIB = 64, 256
_PRESSURE_PERCENT = 1.0  # of the last ten seconds, in which every task waited for memory
# https://www.raspberrypi.com/documentation/computers/raspberry-pi.html#frequency-management-and-thermal-control
_PI_LIMIT_CELSIUS = 80.0
_NEAR_CELSIUS = 5.0
_WORN_PERCENT, _WORN_OUT_PERCENT = 80, 100
_COOL_IT = "cool it: a fan, a heat sink, a lower power mode"
_PSI_HINT = "add psi=1 to /boot/firmware/cmdline.txt and reboot, and memory pressure is measured"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check. advice: what to do, where there is something to do.

    hurts_now: it slows answers at this moment, or may end them: `/health` says degraded.
    """

    name: str
    state: State
    found: str
    advice: str = ""
    hurts_now: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """What the findings are made of. available_bytes: the machine's, or less under a limit on this process."""

    board: Board
    memory: MemoryState
    available_bytes: int | None
    heat: Heat
    power: Power
    disk: Disk


def read_health(root: Path = Path("/")) -> Health:
    """What the board below `root` says of itself now. Never raises for what is in the files."""
    tree = Tree(root)
    memory, limits = read_memory(tree), read_limits(tree)
    available = [memory.available_bytes.value, limits.available_bytes.value]
    return Health(
        board=read_board(tree),
        memory=memory,
        available_bytes=min((n for n in available if n is not None), default=None),
        heat=read_heat(tree),
        power=read_power(tree),
        disk=read_disk(tree),
    )


def findings(health: Health) -> tuple[Finding, ...]:
    """All that can be said of the board, the good and the bad."""
    return (
        *_memory(health),
        *_pressure(health),
        *_temperature(health),
        *_throttling(health.heat),
        *_supply(health.power),
        *_power_mode(health),
        *_disk(health.disk),
    )


def troubles(health: Health) -> tuple[str, ...]:
    """What hurts now, a sentence each."""
    return tuple(f"{finding.name}: {finding.found}" for finding in findings(health) if finding.hurts_now)


def _memory(health: Health) -> Iterator[Finding]:
    free, total = health.available_bytes, health.memory.total_bytes.value
    if free is None:
        yield Finding("memory", "warn", f"unknown: {health.memory.available_bytes.reason}")
        return
    found = f"{free // MIB:,} MiB available" + (f" of {total // MIB:,}" if total is not None else "")
    advice = "close other programs; smoltools-edge profile names the largest"
    if free < _LITTLE_MIB * MIB:
        yield Finding("memory", "fail", f"only {found}", advice, hurts_now=True)
    elif free < _SOME_MIB * MIB:
        yield Finding("memory", "warn", f"only {found}", advice)
    else:
        yield Finding("memory", "ok", found)


def _pressure(health: Health) -> Iterator[Finding]:
    waited, is_pi = health.memory.pressure_full_percent, health.board.kind.value == "raspberry-pi"
    if waited.value is None:
        yield Finding("memory pressure", "ok", "not measured by this kernel", _PSI_HINT if is_pi else "")
        return
    found = f"all tasks waited for memory {waited.value:g} % of the last ten seconds"
    if waited.value > _PRESSURE_PERCENT:
        advice = "a smaller context or model: smoltools-edge profile; swap on a card makes it worse"
        yield Finding("memory pressure", "warn", found, advice, hurts_now=True)
    else:
        yield Finding("memory pressure", "ok", found)


def _temperature(health: Health) -> Iterator[Finding]:
    celsius, limit = health.heat.hottest_celsius.value, health.heat.limit_celsius.value
    if celsius is None:
        return
    if health.board.kind.value == "raspberry-pi":
        limit = _PI_LIMIT_CELSIUS
    found = f"{celsius:.1f} °C" + (f", slowed down from {limit:g} °C" if limit is not None else "")
    if limit is not None and celsius >= limit - _NEAR_CELSIUS:
        yield Finding("temperature", "warn", found, _COOL_IT)
    else:
        yield Finding("temperature", "ok", found)


def _throttling(heat: Heat) -> Iterator[Finding]:
    throttled = heat.throttled.value
    if throttled is None:
        return
    if not throttled:
        yield Finding("throttling", "ok", "none")
        return
    advice = _COOL_IT
    if "under-voltage" in throttled:
        advice = "a stronger supply and a short, thick cable: 5 V and 5 A for a Pi 5, 3 A for a Pi 4"
    elif throttled.startswith("earlier"):
        advice = "watch it under load; the counters begin anew with the next boot"
    found = throttled if throttled.startswith("earlier") else f"slowed down: {throttled}"
    yield Finding("throttling", "warn", found, advice, hurts_now=not throttled.startswith("earlier"))


def _supply(power: Power) -> Iterator[Finding]:
    drawn = f"; drawing {power.draw_watts.value:.1f} W" if power.draw_watts.value is not None else ""
    if power.supply.value:
        advice = "a supply that gives the board's full power, and a short, thick cable"
        now = not power.supply.value.startswith("earlier")
        yield Finding("power supply", "warn", power.supply.value + drawn, advice, hurts_now=now)
    elif power.supply.known or drawn:
        yield Finding("power supply", "ok", f"no alarm{drawn}" if power.supply.known else drawn[2:])


def _power_mode(health: Health) -> Iterator[Finding]:
    mode, modes = health.board.power_mode, health.power.modes.value or ()
    if mode.value is not None:
        lowest = min(modes, key=_watts, default="")
        if len(modes) > 1 and mode.value == lowest:
            others = ", ".join(name for name in modes if name != lowest)
            advice = f"it is the slowest; sudo nvpmodel -m NUMBER sets another: {others}"
            yield Finding("power mode", "warn", mode.value, advice)
        else:
            yield Finding("power mode", "ok", mode.value)
    governor = health.power.governor.value
    if governor == "powersave" and health.board.kind.value == "raspberry-pi":
        yield Finding("governor", "warn", governor, "it holds the clock down; jetson/tune.sh sets another")
    elif governor is not None:
        yield Finding("governor", "ok", governor)


def _watts(mode: str) -> float:
    """Of `15W (mode 0)`; modes without a limit are named MAXN."""
    match = re.match(r"(?:MODE_)?(\d{1,3})W", mode, re.ASCII)
    return float(match[1]) if match else float("inf")


def _disk(disk: Disk) -> Iterator[Finding]:
    if not disk.device.known:
        return
    told = [f"{disk.device.value} ({disk.kind.value or 'kind unknown'})"]
    if disk.written_bytes.value is not None:
        told.append(f"{disk.written_bytes.value / 1e9:,.0f} GB written")
    if disk.wear_percent.value is not None:
        told.append(f"at most {disk.wear_percent.value} % worn")
    if disk.spare.known:
        told.append(f"spare blocks: {disk.spare.value}")
    problem = _disk_problem(disk)
    if problem is None:
        yield Finding("disk", "ok", ", ".join(told))
    else:
        state, found, advice = problem
        yield Finding("disk", state, f"{found}; {', '.join(told)}", advice, hurts_now=state == "fail")


def _disk_problem(disk: Disk) -> tuple[State, str, str] | None:
    replace = "back it up and replace it"
    errors, wear = disk.errors.value or 0, disk.wear_percent.value or 0
    if disk.read_only.value and errors:
        return "fail", f"the file system is read-only after {errors} errors", replace
    if wear > _WORN_OUT_PERCENT or (disk.spare.value or "").startswith("90"):
        return "fail", "it is worn out", replace
    if errors:
        return "warn", f"{errors} errors in the file system", f"check it (fsck) at the next boot; {replace}"
    if wear > _WORN_PERCENT or (disk.spare.value or "").startswith("80"):
        return "warn", "it is nearly worn out", replace
    return None
