"""Shows a benchmark's report as a table on standard output."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from edge.bench.figures import Condition, Figures, Memory, Report, Speed, Spread
from profiles.plan import mib

_WIDTH = 100  # where there is no terminal
Row = tuple[str, str, str]


def show(report: Report) -> None:
    """Prints what was measured on what, and the figures."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH
    about = Table.grid(padding=(0, 2))
    for name, value in _about(report):
        about.add_row(name, value)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("median", justify="right")
    table.add_column("from ... to, and what it is of")
    for row in _rows(report.figures, report.memory):
        table.add_row(*row)
    console.print(about, "", table, sep="\n")
    for skipped in report.figures.skipped:
        console.print(f"not measured: {skipped.what}: {skipped.why}", soft_wrap=True)


def _about(report: Report) -> Iterator[tuple[str, str]]:
    model, device, settings, build = report.model, report.device, report.settings, report.llama_cpp
    yield "model", f"{model['name']}, {model['quantization']}, {model['path']}"
    cores = f"{device.n_usable_cores} cores usable" if device.n_usable_cores else "cores unknown"
    names = dict.fromkeys(
        (device.name, device.cpu or "processor unknown")
    )  # without a board, both are the processor's
    yield "device", ", ".join((*names, cores))
    kernels = build["kernels"]
    assert isinstance(kernels, list | tuple)
    backend = f", {build['backend']}" if build["backend"] else ""
    yield (
        "llama.cpp",
        f"llama-cpp-python {build['version']} ({build['wheel_tag']}){backend}; {' '.join(kernels)}",
    )
    yield (
        "run with",
        f"n_ctx {settings.n_ctx}, {settings.n_threads} threads, KV {settings.kv_type}, n_ubatch {settings.n_ubatch}, "
        f"{settings.n_gpu_layers} layers on a GPU",
    )
    yield "before", _condition(report.before)
    yield "after", _condition(report.after)


def _condition(condition: Condition) -> str:
    told = []
    if condition.temperature_celsius is not None:
        told.append(f"{condition.temperature_celsius:.1f} °C")
    if condition.throttled is not None:
        told.append(f"throttled: {condition.throttled or 'no'}")
    if condition.draw_watts is not None:
        told.append(f"{condition.draw_watts:.1f} W")
    told += [text for text in (condition.power_mode, condition.governor) if text]
    if condition.cpu_load is not None:
        told.append(f"CPU load {condition.cpu_load:.1f}")
    return ", ".join(told) or "the device tells nothing"


def _rows(figures: Figures, memory: Memory) -> Iterator[Row]:
    yield "load", _seconds(figures.load_seconds), "once"
    for prefill in figures.prefill:
        yield _speed_row(f"read {prefill.prompt_tokens} tokens", prefill.speed)
    if figures.decode:
        yield _speed_row("write free text", figures.decode)
    if calls := figures.calls:
        yield _speed_row("write calls", calls.speed)
        share = f"{calls.forced_tokens} of {calls.completion_tokens} tokens were not sampled"
        yield "forced tokens", f"{100 * calls.forced_share:.0f} %", share
        valid = f"{calls.valid} valid calls of {calls.asked}"
        yield _seconds_row("valid call", calls.seconds_per_valid_call, valid)
    if first := figures.first_token:
        what = f"a prompt of {first.prompt_tokens} tokens with tools"
        yield _seconds_row("first token, cold", first.cold_seconds, what)
        reused = f"{first.reused_tokens} of {first.prompt_tokens} tokens held"
        yield _seconds_row("first token, reused", first.reused_seconds, reused)
    peak = memory.peak_resident_bytes
    planned = f"peak of this process; planned {mib(memory.planned_bytes)}"
    if memory.planned_accelerator_bytes:
        planned += f", and {mib(memory.planned_accelerator_bytes)} on the GPU"
    yield "memory", "unknown" if peak is None else mib(peak), planned


def _speed_row(name: str, speed: Speed) -> Row:
    rate = speed.tokens_per_second
    return (
        name,
        f"{rate.median:,.1f} tokens/s",
        f"{rate.min:,.1f} ... {rate.max:,.1f}; {_range(speed.tokens)} tokens in {_seconds(speed.seconds.median)}",
    )


def _range(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def _seconds_row(name: str, seconds: Spread | None, what: str) -> Row:
    if seconds is None:
        return name, "none", what
    return name, _seconds(seconds.median), f"{_seconds(seconds.min)} ... {_seconds(seconds.max)}; {what}"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"
