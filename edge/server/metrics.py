"""What Prometheus is told: counters of this server, and the engine's own read when it asks.

Every value has our name (`smoltools_edge_...`); those that dashboards for llama-server know stand under its names too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.engine.stats import EngineStats
from edge.server.options import DeviceReading
from edge.types import Reply

_P = "smoltools_edge_"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """A registry of its own: several servers in one process do not see each other."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        new = self.registry
        self.requests = Counter(f"{_P}http_requests", "Requests answered", ["route", "status"], registry=new)
        self.request_seconds = Histogram(
            f"{_P}http_request_seconds", "From request to the end of its answer", ["route"],
            buckets=_SECONDS, registry=new,
        )  # fmt: skip
        self.ttft_seconds = Histogram(
            f"{_P}time_to_first_token_seconds", "From request to its first token",
            buckets=_SECONDS, registry=new,
        )  # fmt: skip
        self.token_seconds = Histogram(
            f"{_P}time_per_output_token_seconds", "Decoding time per completion token, one value an answer",
            buckets=_TOKEN_SECONDS, registry=new,
        )  # fmt: skip
        self.hang_ups = Counter(f"{_P}client_hang_ups", "Clients that left before their answer", registry=new)

    def add(self, reply: Reply) -> None:
        """Notes a finished answer."""
        self.ttft_seconds.observe(reply.timings.ttft_s)
        if reply.usage.completion_tokens:
            self.token_seconds.observe(reply.timings.decode_s / reply.usage.completion_tokens)

    def expose(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class EngineCollector(Collector):
    """The engine's counts and the device's values, read when Prometheus asks."""

    def __init__(self, stats: Callable[[], EngineStats | None], device: Callable[[], DeviceReading]) -> None:
        self._stats, self._device = stats, device

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        if stats is not None:
            yield from _engine_metrics(stats)
        yield from _device_metrics(self._device())


# field of EngineStats, our name, llama-server's name, what it is
_COUNTERS = (
    ("requests", "engine_requests", None, "Answers the engine took in"),
    ("finished", "answers_finished", None, "Answers that came to their end"),
    ("cancelled", "answers_cancelled", None, "Answers given up: client gone, deadline"),
    ("failed", "answers_failed", None, "Answers that failed"),
    ("refused", "requests_refused", None, "Requests refused because the queue was full"),
    ("prompt_tokens", "prompt_tokens", None, "Prompt tokens of finished answers"),
    ("cached_tokens", "cached_tokens", None, "Prompt tokens that were reused and not computed"),
    ("completion_tokens", "completion_tokens", "tokens_predicted", "Tokens generated"),
    ("forced_tokens", "forced_tokens", None, "Generated tokens that were given, not sampled"),
    ("grammar_refusals", "grammar_rejections", None, "Sampled tokens that the grammar refused"),
    ("calls", "tool_calls", None, "Tool calls handed out"),
    ("withdrawn_calls", "tool_calls_withdrawn", None, "Tool calls begun and not handed out"),
    ("state_cache_hits", "state_cache_hits", None, "Prompts that began with a state from disk"),
    ("state_cache_misses", "state_cache_misses", None, "Prompts that no state on disk fitted"),
)
_GAUGES = (
    ("running", "requests_running", "requests_processing", "Answers being made"),
    ("queued", "requests_queued", "requests_deferred", "Requests waiting"),
    ("n_parallel", "sequences", None, "Answers that can be made at once"),
    ("n_sequences_free", "sequences_free", None, "Sequences that no answer holds"),
    ("max_queue", "queue_limit", None, "Requests that may wait"),
    ("state_cache_bytes", "state_cache_bytes", None, "Size of the states on disk"),
)


def _engine_metrics(stats: EngineStats) -> Iterator[Metric]:
    for field, ours, theirs, text in _COUNTERS:
        yield CounterMetricFamily(_P + ours, text, value=getattr(stats, field))
        if theirs:
            yield CounterMetricFamily(f"llamacpp:{theirs}", text, value=getattr(stats, field))
    computed = stats.prompt_tokens - stats.cached_tokens  # llama-server counts these alone
    yield CounterMetricFamily("llamacpp:prompt_tokens", "Prompt tokens computed", value=computed)
    for field, ours, theirs, text in _GAUGES:
        yield GaugeMetricFamily(_P + ours, text, value=getattr(stats, field))
        if theirs:
            yield GaugeMetricFamily(f"llamacpp:{theirs}", text, value=getattr(stats, field))


_DEVICE = (
    ("temperature_c", "temperature_celsius", "Hottest part of the processor"),
    ("throttled", "throttled", "1 while the device holds its clocks down"),
    ("power_w", "power_watts", "What the device draws"),
    ("memory_available_bytes", "memory_available_bytes", "Memory that can be had without swapping"),
    (
        "memory_pressure_percent",
        "memory_pressure_percent",
        "Share of 10 s in which all tasks waited for memory",
    ),
    ("disk_wear_percent", "disk_wear_percent", "Life time of the disk that is used at most"),
    ("disk_written_bytes", "disk_written_bytes", "Written to the file system since it was made"),
    ("disk_errors", "disk_errors", "Errors that the file system has met"),
    ("resident_bytes", "resident_memory_bytes", "Resident memory of this process"),
)


def _device_metrics(reading: DeviceReading) -> Iterator[Metric]:
    for field, ours, text in _DEVICE:
        value = getattr(reading, field)
        if value is not None:
            yield GaugeMetricFamily(_P + ours, text, value=value)
    if reading.power_mode is not None:
        mode = GaugeMetricFamily(f"{_P}power_mode", "1 for the mode that is set", labels=["mode"])
        mode.add_metric([reading.power_mode], 1)
        yield mode
    yield GaugeMetricFamily(f"{_P}degraded", "1 when /health says degraded", value=bool(reading.troubles))
