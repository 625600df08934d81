"""What is decided for a run, with the reason of each step, and what else was looked at. Plain values only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from profiles.footprint import Footprint, RunOptions

MIB = 1 << 20
_PLANNING_BYTES = (
    96 * MIB
)  # resident in `serve` when it plans: Python, the server's packages, the file's header


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What the user has fixed; None is free to choose. n_parallel is never chosen."""

    quantization: str | None = None
    n_ctx: int | None = None
    kv_type: str | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    n_gpu_layers: int | None = None
    n_threads: int | None = None
    use_extra_bufts: bool | None = None
    n_parallel: int = 1
    state_cache_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: what, the value, and why not another."""

    what: str
    value: object
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to run one model, and whether it fits. why_not is empty when it does."""

    model: str
    quantization: str
    installed: bool
    options: RunOptions
    footprint: Footprint
    fits: bool
    why_not: str = ""

    @property
    def total_bytes(self) -> int:
        """What it needs in the machine's memory."""
        return self.footprint.total_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The chosen way to run, under which budget, from which candidates. n_slots: sequences, spare ones included."""

    device_profile: str
    chosen: Candidate
    n_batch: int
    n_threads: int
    n_slots: int
    available_bytes: int
    headroom_bytes: int
    steps: tuple[Step, ...]
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]

    @property
    def budget_bytes(self) -> int:
        """What a model may take: available memory less the headroom."""
        return max(0, self.available_bytes - self.headroom_bytes)

    @property
    def free_bytes(self) -> int:
        """What stays free beyond the headroom."""
        return self.budget_bytes - self.chosen.total_bytes

    @property
    def memory_max_bytes(self) -> int:
        """A memory limit for a service that runs this plan: under it, the same plan fits again.

        What the plan takes, the headroom that it leaves under a limit, too, and what the program itself takes while
        it plans; up to a whole MiB.
        """
        wanted = self.chosen.total_bytes + self.headroom_bytes + _PLANNING_BYTES
        return -(-wanted // MIB) * MIB

    def document(self) -> dict[str, object]:
        """The plan for JSON, without the candidates."""
        chosen = self.chosen
        return {
            "device_profile": self.device_profile,
            "model": chosen.model,
            "quantization": chosen.quantization,
            "n_threads": self.n_threads,
            "n_batch": self.n_batch,
            **dataclasses.asdict(chosen.options),
            "memory": {
                **chosen.footprint.terms(),
                "total_bytes": chosen.total_bytes,
                "accelerator_bytes": chosen.footprint.accelerator_bytes,
                "headroom_bytes": self.headroom_bytes,
                "available_bytes": self.available_bytes,
                "free_bytes": self.free_bytes,
                "memory_max_bytes": self.memory_max_bytes,
            },
            "steps": [dataclasses.asdict(step) for step in self.steps],
            "notes": list(self.notes),
        }


def mib(n_bytes: int) -> str:
    """Bytes for people: `3,904 MiB`."""
    return f"{n_bytes / MIB:,.0f} MiB"
