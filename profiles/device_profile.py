"""Device profiles: what suits a class of devices, as TOML data, and which of them a device gets.

The shipped files lie in `data/`; a user's own file is laid over the one that fits. No decision about a model is
made here, see `choice`.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from profiles.device import Device
from profiles.errors import DeviceProfileError

Dimension = Literal["n_ctx", "model", "quantization", "kv_type", "n_ubatch", "use_extra_bufts"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
Kind = Literal["jetson", "raspberry-pi", "apple", "laptop", "desktop", "server", "other"]
_MIB = 1 << 20


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(_Table):
    """Which devices a profile is for; every condition that is given must hold."""

    kinds: tuple[Kind, ...] = ()
    module: str = ""
    limited: bool = False
    max_total_mib: Annotated[int, Field(ge=1)] | None = None
    priority: Annotated[int, Field(ge=0, le=100)] = 0


class Memory(_Table):
    """headroom_mib: of the available memory, what is left to the system and to programs that start later.

    state_cache_mib: for copies of a hybrid model's state, so that a prompt that was seen need not be computed anew.
    """

    headroom_mib: Annotated[int, Field(ge=0, le=1 << 20)]
    state_cache_mib: Annotated[int, Field(ge=0, le=1 << 16)] = 256
    free_advice: tuple[str, ...] = ()


class Run(_Table):
    """How models run. Lists begin with what is best, `order` with what is given up last.

    gpu_layers: `all` offloads as much as fits where llama.cpp can offload; a number is a limit.
    """

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    n_ctx: Annotated[tuple[Annotated[int, Field(ge=256, le=1 << 20)], ...], Field(min_length=1)]
    quantizations: Annotated[tuple[str, ...], Field(min_length=1)]
    kv_types: Annotated[tuple[Literal["f16", "q8_0", "f32"], ...], Field(min_length=1)]
    n_ubatch: Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(min_length=1)]
    n_batch: Annotated[int, Field(ge=1, le=8192)] = 512
    gpu_layers: Literal["all"] | Annotated[int, Field(ge=0, le=1000)] = "all"
    threads: Literal["performance", "physical"] | Annotated[int, Field(ge=1, le=512)] = "performance"
    use_extra_bufts: Annotated[tuple[bool, ...], Field(min_length=1)] = (False,)
    order: tuple[Dimension, ...] = DIMENSIONS

    @field_validator("order")
    @classmethod
    def _each_once(cls, order: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
        if sorted(order) != sorted(DIMENSIONS):
            raise ValueError(f"each of {', '.join(DIMENSIONS)} is needed once")
        return order


class Target(_Table):
    """What such a device is like, for those who prepare something for it elsewhere.

    available_mib: that a fresh system leaves, as the recordings have it. glibc: the oldest of its systems.
    """

    machine: Literal["aarch64", "x86_64"]
    available_mib: Annotated[int, Field(ge=256, le=1 << 22)]
    glibc: Annotated[str, Field(pattern=r"^2\.\d{2}$")] = "2.35"
    cuda: bool = False


class DeviceProfile(_Table):
    """One class of devices. target: where all of its devices are alike enough."""

    name: str
    description: str
    match: Match
    memory: Memory
    run: Run
    target: Target | None = None
    notes: tuple[str, ...] = ()

    @property
    def headroom_bytes(self) -> int:
        """The headroom in bytes."""
        return self.memory.headroom_mib * _MIB


def shipped_profiles() -> tuple[DeviceProfile, ...]:
    """All profiles of this package, the most specific first."""
    folder = resources.files("profiles").joinpath("data")
    texts = {f.name: f.read_text(encoding="utf-8") for f in folder.iterdir() if f.name.endswith(".toml")}
    found = [_validate(tomllib.loads(text), name) for name, text in sorted(texts.items())]
    return tuple(sorted(found, key=lambda profile: -profile.match.priority))


def profile_for(device: Device, user_file: Path | None = None) -> tuple[DeviceProfile, str]:
    """The profile that a device gets, with the user's own values laid over it, and why it is this one.

    Raises DeviceProfileError for a user's file that cannot be read or is not allowed.
    """
    for profile in shipped_profiles():
        why = _matches(profile.match, device)
        if why is not None:
            break
    else:
        raise AssertionError("the profile `other` matches everything")
    if user_file is None:
        return profile, why
    return _overlay(profile, user_file), f"{why}; {user_file} overrides it"


def _matches(match: Match, device: Device) -> str | None:
    """Why the device is of this class, or None."""
    kind, module = device.board.kind, device.board.module
    reasons = []
    if match.limited:
        if not device.is_limited:
            return None
        reasons.append(f"a memory limit is set ({device.limits.memory_bytes.source})")
    if match.kinds:
        if kind.value not in match.kinds:
            return None
        reasons.append(f"{kind.value} ({kind.source})")
    if match.module:
        if match.module != module.value:
            return None
        reasons.append(f"{module.value} ({module.source})")
    if match.max_total_mib is not None:
        total = device.total_bytes.value
        if total is None or total > match.max_total_mib * _MIB:
            return None
        reasons.append(f"at most {match.max_total_mib} MiB of memory")
    return ", ".join(reasons) or "no other profile fits this device"


def _overlay(profile: DeviceProfile, path: Path) -> DeviceProfile:
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise DeviceProfileError(f"the device profile {path} cannot be read: {exc.strerror or exc}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise DeviceProfileError(f"the device profile {path} is not TOML: {exc}") from None
    return _validate(_merge(profile.model_dump(mode="json"), own), str(path))


def _merge(base: dict[str, object], own: dict[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in own.items():
        under = base.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = _merge(under, value) if both else value  # type: ignore[arg-type]
    return merged


def _validate(table: dict[str, object], origin: str) -> DeviceProfile:
    try:
        return DeviceProfile.model_validate(table)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(
            str(part) for part in first["loc"] if not str(part).startswith(("literal", "constrained"))
        )
        if first["type"] == "extra_forbidden":
            raise DeviceProfileError(f"the device profile {origin} has {where}, which is unknown") from None
        raise DeviceProfileError(
            f"the device profile {origin} has {where} = {first['input']!r}: {first['msg'].lower()}"
        ) from None
