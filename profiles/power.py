"""What the board is fed and what it draws: its own meter, alarms of the supply, power modes, the clock's governor.

Which power mode is set stands in `board`. Nothing is measured that the kernel does not measure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from profiles.reading import Reading, Tree, unknown

_HWMON = "sys/class/hwmon"
_GOVERNOR = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
# Jetson Linux Developer Guide, "Electrical Management" of the Orin series: counts since boot.
_JETSON_ALARMS = {
    "oc1_event_cnt": "under-voltage", "oc2_event_cnt": "average over-current", "oc3_event_cnt": "over-current",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Power:
    """supply: empty when the board is fed well, otherwise what is or was wrong. modes: all that nvpmodel has."""

    draw_watts: Reading[float]
    supply: Reading[str]
    modes: Reading[tuple[str, ...]]
    governor: Reading[str]


def read_power(tree: Tree) -> Power:
    """From hwmon, /etc/nvpmodel.conf and cpufreq."""
    return Power(
        draw_watts=_draw(tree),
        supply=_jetson_supply(tree).or_else(_pi_supply(tree)),
        modes=tree.text("etc/nvpmodel.conf").map(_modes, "no POWER_MODEL in it"),
        governor=tree.text(_GOVERNOR),
    )


def _draw(tree: Tree) -> Reading[float]:
    """What the whole board draws, by its own meter: Jetson's `VDD_IN` rail, in mV and mA."""
    for meter in tree.names(_HWMON, r"hwmon\d+"):
        for n in range(1, 5):
            where = f"{_HWMON}/{meter}"
            if tree.text(f"{where}/in{n}_label").value in ("VDD_IN", "VIN_SYS_5V0"):
                millivolts = tree.number(f"{where}/in{n}_input").value
                milliamperes = tree.number(f"{where}/curr{n}_input").value
                if millivolts is not None and milliamperes is not None:
                    return Reading(millivolts * milliamperes / 1e6, f"/{where}/in{n}_input, curr{n}_input")
    return unknown(f"/{_HWMON}", "no meter of the whole board")


def _meter(tree: Tree, name: str) -> str | None:
    found = (f"{_HWMON}/{meter}" for meter in tree.names(_HWMON, r"hwmon\d+"))
    return next((where for where in found if tree.text(f"{where}/name").value == name), None)


def _jetson_supply(tree: Tree) -> Reading[str]:
    where = _meter(tree, "soctherm_oc")
    if where is None:
        return unknown(f"/{_HWMON}", "no alarm of the supply")
    counts = {word: tree.number(f"{where}/{file}").value for file, word in _JETSON_ALARMS.items()}
    if all(n is None for n in counts.values()):
        return unknown(f"/{where}", "no counter in it")
    told = ", ".join(f"{word} {n} times" for word, n in counts.items() if n)
    return Reading(f"earlier: {told} since boot" if told else "", f"/{where}/oc*_event_cnt")


def _pi_supply(tree: Tree) -> Reading[str]:
    """The kernel's alarm of the last seconds; the firmware's memory since boot is in `heat`."""
    where = _meter(tree, "rpi_volt")
    if where is None:
        return unknown(f"/{_HWMON}", "no alarm of the supply")
    return tree.number(f"{where}/in0_lcrit_alarm").map(lambda alarm: "under-voltage" if alarm else "")


def _modes(text: str) -> tuple[str, ...] | None:
    found = re.findall(r"<\s*POWER_MODEL\s+ID=(\d{1,4})\s+NAME=(\S+)\s*>", text, re.ASCII)
    return tuple(f"{name} (mode {number})" for number, name in found) or None
