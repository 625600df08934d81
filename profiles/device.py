"""A device: everything that is detected of it, in one value. Reads files below a root and starts nothing.

What only llama.cpp can tell (whether it was built with CUDA, which GPUs it sees) is passed in as plain values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from profiles.board import Board, read_board
from profiles.cgroups import Limits, read_limits
from profiles.cpu import Cpu, read_cpu
from profiles.disk import Disk, read_disk
from profiles.heat import Heat, read_heat
from profiles.memory import MemoryState, read_memory
from profiles.power import Power, read_power
from profiles.reading import Reading, Tree, unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What llama.cpp can offload to. unified: its memory is the machine's own."""

    name: str
    backend: str
    total_bytes: int
    free_bytes: int
    unified: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A machine as a model sees it."""

    board: Board
    cpu: Cpu
    memory: MemoryState
    limits: Limits
    heat: Heat
    power: Power
    disk: Disk
    gpu_backend: Reading[str]
    accelerators: tuple[Accelerator, ...] = ()

    @property
    def total_bytes(self) -> Reading[int]:
        """The machine's memory, or the limit on this process if that is less."""
        return _smaller(self.memory.total_bytes, self.limits.memory_bytes)

    @property
    def available_bytes(self) -> Reading[int]:
        """What may be taken now without swapping: MemAvailable, under the limit on this process."""
        return _smaller(self.memory.available_bytes, self.limits.available_bytes)

    @property
    def is_limited(self) -> bool:
        """Whether a control group allows less memory than the machine has."""
        limit, total = self.limits.memory_bytes.value, self.memory.total_bytes.value
        return limit is not None and (total is None or limit < total)

    def readings(self) -> Iterator[tuple[str, Reading[object]]]:
        """All detected values by dotted name, for showing."""
        for group in dataclasses.fields(self):
            part = getattr(self, group.name)
            if isinstance(part, Reading):
                yield group.name, part
            elif dataclasses.is_dataclass(part):
                for field in dataclasses.fields(part):
                    yield f"{group.name}.{field.name}", getattr(part, field.name)


def _smaller(of_machine: Reading[int], of_group: Reading[int]) -> Reading[int]:
    if of_group.value is None:
        return of_machine
    if of_machine.value is None or of_group.value < of_machine.value:
        return of_group
    return of_machine


def detect_device(
    root: Path = Path("/"),
    *,
    gpu_backend: Reading[str] | None = None,
    accelerators: tuple[Accelerator, ...] = (),
) -> Device:
    """The device whose files lie below `root`. Never raises for what is in them.

    gpu_backend: the backend that llama.cpp was built with (`cuda`), if any; only the caller can know.
    """
    tree = Tree(root)
    return Device(
        board=read_board(tree),
        cpu=read_cpu(tree),
        memory=read_memory(tree),
        limits=read_limits(tree),
        heat=read_heat(tree),
        power=read_power(tree),
        disk=read_disk(tree),
        gpu_backend=gpu_backend or unknown("llama.cpp", "not asked"),
        accelerators=accelerators,
    )
