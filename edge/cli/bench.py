"""`bench`: how fast this device runs this model. Joins plan, engine, measuring and the device's readings."""

from __future__ import annotations

import dataclasses
import json as json_module
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import (
    DeviceProfileOption,
    GpuLayersOption,
    JsonOption,
    KvTypeOption,
    ModelOption,
    NCtxOption,
    ThreadsOption,
    VerboseOption,
)
from edge.cli.plan import THIS_MACHINE, open_planned
from edge.cli.progress import tell, warn
from edge.cli.session import set_up_logging
from profiles.plan import Pins

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edge.bench.figures import Condition, DeviceFacts, Report, Settings
    from edge.bench.measure import BenchOptions, OnStep
    from edge.engine.engine import Engine
    from profiles.plan import Plan

_TOOLS = Path(__file__).parents[1] / "examples" / "tools.json"


def bench_command(
    model: ModelOption = "demo",
    repeats: Annotated[
        int, typer.Option(metavar="N", help="Of each measurement, after one that warms up.")
    ] = 3,
    prompt_tokens: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Length of a prompt to read; repeatable. Default: 128 and 512."),
    ] = None,
    gen_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of free text to write.")] = 128,
    n_ctx: NCtxOption = None,
    threads: ThreadsOption = None,
    kv_type: KvTypeOption = None,
    gpu_layers: GpuLayersOption = None,
    device_profile: DeviceProfileOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure how fast this device runs a model: reading, writing, calls, memory.

    Example: smoltools-edge bench --model demo --repeats 5
    """
    from edge.bench.measure import BenchOptions

    set_up_logging(verbose)
    options = BenchOptions(repeats=repeats, prompt_tokens=tuple(prompt_tokens or ()), gen_tokens=gen_tokens)
    options.check()
    pins = Pins(n_ctx=n_ctx, n_threads=threads, kv_type=kv_type, n_gpu_layers=gpu_layers)
    # Without states of earlier runs on disk: cold is cold.
    engine, planned = open_planned(model, pins, profile_file=device_profile)
    with engine:
        report = _report(engine, planned.plan, options)
    if json:
        typer.echo(json_module.dumps(report.document(), ensure_ascii=False, indent=2))
    else:
        from edge.cli.bench_view import show

        show(report)


def _report(engine: Engine, plan: Plan, options: BenchOptions) -> Report:
    from edge.bench.figures import Memory, Report
    from edge.bench.measure import measure
    from edge.bench.memory import peak_resident_bytes
    from edge.engine.build_facts import ask_build
    from edge.grammar import read_tools

    options.prompt_sizes(engine.n_ctx)  # refuses before anything that takes time
    warn(engine.model.path, engine.warnings)
    build, before = ask_build(), read_condition()
    with shown_steps() as on_step:
        figures = measure(engine, options, read_tools(_TOOLS), on_step)
    return Report(
        model=engine.facts,
        device=_device_facts(),
        llama_cpp=dataclasses.asdict(build),
        settings=_settings(engine, options),
        figures=figures,
        memory=Memory(
            peak_resident_bytes=peak_resident_bytes(),
            planned_bytes=plan.chosen.total_bytes,
            planned_accelerator_bytes=plan.chosen.footprint.accelerator_bytes,
        ),
        before=before,
        after=read_condition(),
    )


def _settings(engine: Engine, options: BenchOptions) -> Settings:
    """What was in force, asked of the engine and not of the plan."""
    from edge.bench.figures import Settings

    context, model = engine.context.plan, engine.model.options
    return Settings(
        n_ctx=context.n_ctx,
        n_batch=context.n_batch,
        n_ubatch=context.n_ubatch,
        n_threads=context.n_threads,
        kv_type=context.kv_type,
        flash_attn=context.flash_attn,
        n_gpu_layers=model.n_gpu_layers,
        use_mmap=model.use_mmap,
        use_extra_bufts=model.use_extra_bufts,
        temperature=engine.temperature,
        repeats=options.repeats,
        gen_tokens=options.gen_tokens,
    )


def _device_facts(root: Path = THIS_MACHINE) -> DeviceFacts:
    from edge.bench.figures import DeviceFacts
    from profiles.device import detect_device

    device = detect_device(root)
    board, cpu = device.board, device.cpu
    return DeviceFacts(
        name=board.model.value or cpu.name.value or "unknown",
        kind=board.kind.value,
        cpu=cpu.name.value,
        architecture=cpu.architecture.value,
        n_physical_cores=cpu.n_physical.value,
        n_usable_cores=cpu.n_usable.value,
        memory_bytes=device.total_bytes.value,
    )


def read_condition(root: Path = THIS_MACHINE) -> Condition:
    """How the device below `root` is now."""
    from edge.bench.figures import Condition
    from profiles.health import read_health

    health, load = read_health(root), None
    with suppress(OSError):
        load = os.getloadavg()[0]
    return Condition(
        temperature_celsius=health.heat.hottest_celsius.value,
        throttled=health.heat.throttled.value,
        draw_watts=health.power.draw_watts.value,
        power_mode=health.board.power_mode.value,
        governor=health.power.governor.value,
        cpu_load=load,
    )


@contextmanager
def shown_steps() -> Iterator[OnStep]:
    """How far it is, on standard error: a bar on a terminal, elsewhere a line as each stage begins."""
    if not sys.stderr.isatty():
        yield _tell_step
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<25}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done)

        yield draw


def _tell_step(stage: str, done: int, total: int) -> None:
    if done == 0:
        tell(f"{stage}: once to warm up, then {total - 1} times")
