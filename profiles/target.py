"""A device that is not here, by its profile: what a plan for it can be made from beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from profiles.device import Device, detect_device
from profiles.device_profile import DeviceProfile, shipped_profiles
from profiles.errors import DeviceProfileError
from profiles.reading import Reading

_NOWHERE = Path("/nonexistent")
_MIB = 1 << 20


def target_profiles() -> dict[str, DeviceProfile]:
    """The profiles that say what their devices are like, by name."""
    return {profile.name: profile for profile in shipped_profiles() if profile.target is not None}


def target_device(name: str, available_mib: int | None = None) -> tuple[Device, DeviceProfile]:
    """The device and its profile. available_mib: instead of the profile's own number.

    Raises DeviceProfileError for a name that is no target.
    """
    profile = target_profiles().get(name)
    if profile is None or profile.target is None:
        allowed = ", ".join(sorted(target_profiles()))
        raise DeviceProfileError(f"{name!r} is no target; allowed are this, {allowed}")
    known = Reading((available_mib or profile.target.available_mib) * _MIB, f"the profile {name}")
    nothing = detect_device(_NOWHERE)
    memory = replace(nothing.memory, total_bytes=known, available_bytes=known)
    architecture = Reading(profile.target.machine, f"the profile {name}")
    return replace(nothing, memory=memory, cpu=replace(nothing.cpu, architecture=architecture)), profile
