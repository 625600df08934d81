"""What a benchmark found, as plain values: units stand in the names, every repeat is kept beside the median."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The repeats of one figure."""

    median: float
    min: float
    max: float
    samples: tuple[float, ...]


def spread(samples: Sequence[float]) -> Spread:
    """Median, least and most of at least one sample."""
    return Spread(statistics.median(samples), min(samples), max(samples), tuple(samples))


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens and the seconds that they took, repeat by repeat; the speed is one divided by the other."""

    tokens: tuple[int, ...]
    seconds: Spread
    tokens_per_second: Spread


def speed(repeats: Sequence[tuple[int, float]]) -> Speed:
    """Of tokens and seconds of each repeat."""
    tokens = tuple(n for n, _ in repeats)
    rates = [n / seconds if seconds else 0.0 for n, seconds in repeats]
    return Speed(tokens, spread([seconds for _, seconds in repeats]), spread(rates))


@dataclass(frozen=True, slots=True)
class Prefill:
    """Reading a prompt of random tokens, up to the first sampled token; nothing of it was held."""

    prompt_tokens: int
    speed: Speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Answers that have to be a call of the example tools, each to a new question; the tools' state is held.

    valid: calls that came out, complete and valid against their schema. forced_share: of all tokens of the answers,
    those that the grammar gave. speed: of the tokens behind the first sampled one, forced ones included.
    seconds_per_valid_call: from request to reply, the question's prefill included; None where no call came out.
    """

    asked: int
    valid: int
    completion_tokens: int
    forced_tokens: int
    forced_share: float
    speed: Speed
    seconds_per_valid_call: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    """Seconds from a request with the example tools to its first token.

    cold: the whole prompt is computed. reused: reused_tokens of it (the tools) were held, the question is new.
    """

    prompt_tokens: int
    reused_tokens: int
    cold_seconds: Spread
    reused_seconds: Spread


@dataclass(frozen=True, slots=True)
class Skipped:
    """What could not be measured with this model and context, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident bytes of this process at the peak, and what the plan had expected.

    peak_resident_bytes: None where the system does not tell. planned_accelerator_bytes: in a GPU's
    own memory, not measured.
    """

    peak_resident_bytes: int | None
    planned_bytes: int
    planned_accelerator_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How the device was at one moment. None: it does not tell.

    throttled: empty at full speed, otherwise what slows it or has slowed it since boot.
    cpu_load: processes that ran or wanted to, mean of the last minute; those of others make figures worse.
    """

    temperature_celsius: float | None = None
    throttled: str | None = None
    draw_watts: float | None = None
    power_mode: str | None = None
    governor: str | None = None
    cpu_load: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that was timed. None: see `skipped`."""

    load_seconds: float
    prefill: tuple[Prefill, ...]
    decode: Speed | None
    calls: Calls | None
    first_token: FirstToken | None
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What the figures were taken on. name: the board's or computer's, else the processor's."""

    name: str
    kind: str | None
    cpu: str | None
    architecture: str | None
    n_physical_cores: int | None
    n_usable_cores: int | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the model was run and how often each thing was measured."""

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    kv_type: str
    flash_attn: bool
    n_gpu_layers: int
    use_mmap: bool
    use_extra_bufts: bool
    temperature: float
    repeats: int
    gen_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A benchmark with all that is needed to compare it with another. model, llama_cpp: as the engine tells them."""

    model: Mapping[str, object]
    device: DeviceFacts
    llama_cpp: Mapping[str, object]
    settings: Settings
    figures: Figures
    memory: Memory
    before: Condition
    after: Condition

    def document(self) -> dict[str, object]:
        """The report for JSON."""
        return {
            "model": dict(self.model),
            "device": asdict(self.device),
            "llama_cpp": dict(self.llama_cpp),
            "settings": asdict(self.settings),
            **asdict(self.figures),
            "memory": asdict(self.memory),
            "conditions": {"before": asdict(self.before), "after": asdict(self.after)},
        }
