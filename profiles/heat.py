"""Temperature, and whether the machine has slowed itself down."""

from __future__ import annotations

from dataclasses import dataclass

from profiles.reading import Reading, Tree, unknown

_ZONES = "sys/class/thermal"
# Bits of the firmware's get_throttled; https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
_PI_NOW = {
    0: "under-voltage", 1: "the clock is capped", 2: "throttled", 3: "at the soft temperature limit",
}  # fmt: skip
_PI_PAST_SHIFT = 16


@dataclass(frozen=True, slots=True)
class Heat:
    """throttled: empty when the machine runs at full speed, otherwise what slows or slowed it.

    limit_celsius: at which the hottest zone begins to slow it.
    """

    hottest_celsius: Reading[float]
    limit_celsius: Reading[float]
    throttled: Reading[str]


def read_heat(tree: Tree) -> Heat:
    """From the thermal zones and, by board, the firmware, the cooling devices or the processor's counters."""
    hottest, zone = _hottest(tree)
    throttled = _pi_throttled(tree).or_else(_cooling(tree), _counted(tree))
    return Heat(hottest, _limit(tree, zone), throttled)


def _hottest(tree: Tree) -> tuple[Reading[float], str]:
    """The temperature and the zone's name."""
    found: list[tuple[float, str, str]] = []
    for zone in tree.names(_ZONES, r"thermal_zone\d+"):
        celsius = tree.number(f"{_ZONES}/{zone}/temp").map(_plausible_celsius).value
        kind = tree.text(f"{_ZONES}/{zone}/type").value or zone
        if celsius is not None:
            found.append((celsius, f"/{_ZONES}/{zone} ({kind})", zone))
    if not found:
        return unknown(f"/{_ZONES}", "no thermal zone has a plausible temperature"), ""
    celsius, source, zone = max(found)
    return Reading(celsius, source), zone


def _limit(tree: Tree, zone: str) -> Reading[float]:
    """The lowest passive trip point, where the kernel slows things down; active ones only start fans."""
    where = f"{_ZONES}/{zone}"
    trips = [
        tree.number(f"{where}/{name.removesuffix('type')}temp").map(_plausible_celsius)
        for name in (tree.names(where, r"trip_point_\d+_type") if zone else ())
        if tree.text(f"{where}/{name}").value == "passive"
    ]
    known = [trip for trip in trips if trip.value is not None]
    if not known:
        return unknown(f"/{where}", "no passive trip point")
    return min(known, key=lambda trip: trip.value or 0.0)


def _plausible_celsius(millidegrees: int) -> float | None:
    # A sensor that is switched off reads 0, -256 or an absurd number.
    return millidegrees / 1000 if 0 < millidegrees < 150_000 else None


def _pi_throttled(tree: Tree) -> Reading[str]:
    """Raspberry Pi: a bit mask in hexadecimal, now in the low and since boot in the high half."""
    folders = [
        f"sys/devices/platform/{soc}/{firmware}"
        for soc in ["", *tree.names("sys/devices/platform", r"soc(@[0-9a-f]+)?")]
        for firmware in tree.names(f"sys/devices/platform/{soc}", r"soc.*:firmware")
    ]
    readings = [tree.number(f"{folder}/get_throttled", base=16).map(_pi_words) for folder in folders]
    return readings[0].or_else(*readings[1:]) if readings else unknown("/sys/devices/platform", "no firmware")


def _pi_words(bits: int) -> str:
    now = [word for bit, word in _PI_NOW.items() if bits >> bit & 1]
    past = [word for bit, word in _PI_NOW.items() if bits >> bit + _PI_PAST_SHIFT & 1]
    if now:
        return ", ".join(now)
    return f"earlier: {', '.join(past)}" if past else ""


def _cooling(tree: Tree) -> Reading[str]:
    """Jetson: cooling devices that hold clocks down; a state above 0 is in force."""
    active, seen = [], False
    for device in tree.names(_ZONES, r"cooling_device\d+"):
        kind = tree.text(f"{_ZONES}/{device}/type").value or ""
        if "throttle" not in kind and "oc-event" not in kind:
            continue
        seen = True
        if tree.number(f"{_ZONES}/{device}/cur_state").value:
            active.append(kind)
    if not seen:
        return unknown(f"/{_ZONES}/cooling_device*", "none of them tells of throttling")
    return Reading(", ".join(active), f"/{_ZONES}/cooling_device*/cur_state")


def _counted(tree: Tree) -> Reading[str]:
    """x86: throttling events since boot."""
    path = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    return tree.number(path).map(lambda n: f"earlier: {n} times since boot" if n else "")
