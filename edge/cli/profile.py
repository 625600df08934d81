"""`profile`: the device, its memory, the plan and its reasons."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import DeviceProfileOption, JsonOption, KvTypeOption, NCtxOption
from edge.cli.plan import (
    ANY_MODEL,
    THIS_MACHINE,
    PlanError,
    detect,
    find_models,
    known_models,
    profile_of,
    translated_errors,
)
from profiles.errors import NothingFits
from profiles.plan import Pins, Plan, mib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.engine.dry_load import DryLoad
    from profiles.device import Device
    from profiles.plan import Candidate

_BAR_CELLS = 60
_NAME = 30


def profile_command(
    model: Annotated[
        str, typer.Option(metavar="REF", help="Plan for this model. Default: choose one, too.")
    ] = ANY_MODEL,
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Read /proc, /sys and /etc below DIR, a recorded device.")
    ] = THIS_MACHINE,
    n_ctx: NCtxOption = None,
    kv_type: KvTypeOption = None,
    parallel: Annotated[int, typer.Option(metavar="N", help="Requests that are answered at once.")] = 1,
    device_profile: DeviceProfileOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with what llama.cpp reserves; needs the model's file.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the device, its memory, and what would run on it. Example: smoltools-edge profile --model smol-tools-4b"""
    if not root.is_dir():
        raise PlanError(f"{root} is not a folder; --root takes one with proc, sys and etc in it")
    pins = Pins(n_ctx=n_ctx, kv_type=kv_type, n_parallel=parallel)
    with translated_errors():
        device = detect(root)
        profile, why = profile_of(device, device_profile)
        found = find_models(model, pins, profile, fetch=False)
        from profiles.choice import choose

        try:
            others = known_models(profile)
            plan = choose(device, profile, found.models, found.pins, others=others, why_profile=why)
            refusal, candidates = None, plan.candidates
        except NothingFits as exc:
            plan, refusal, candidates = None, str(exc), exc.candidates
    checked = _check(plan, found.path) if check else None
    if json:
        document = _document(device, plan, candidates, refusal, checked)
        typer.echo(json_module.dumps(document, ensure_ascii=False, indent=2))
    else:
        typer.echo("\n".join(_text(device, plan, candidates, checked)))
    if refusal is not None:
        raise PlanError(refusal)


def _document(
    device: Device,
    plan: Plan | None,
    candidates: Sequence[Candidate],
    refusal: str | None,
    checked: DryLoad | None,
) -> dict[str, object]:
    import dataclasses

    def plain(value: object) -> object:
        return sorted(value) if isinstance(value, (frozenset, set)) else value

    available = device.available_bytes
    document: dict[str, object] = {
        "device": {
            name: {"value": plain(r.value), "source": r.source, "reason": r.reason}
            for name, r in device.readings()
        },
        "accelerators": [dataclasses.asdict(gpu) for gpu in device.accelerators],
        "available": {"bytes": available.value, "source": available.source, "reason": available.reason},
        "plan": plan.document() if plan else None,
        "refusal": refusal,
        "candidates": [_row(candidate, plan) for candidate in candidates],
    }
    return document | ({"llama_cpp_reserves": dataclasses.asdict(checked)} if checked else {})


def _row(candidate: Candidate, plan: Plan | None) -> dict[str, object]:
    options = candidate.options
    return {
        "model": candidate.model,
        "quantization": candidate.quantization,
        "installed": candidate.installed,
        "n_ctx": options.n_ctx,
        "kv_type": options.kv_type_k,
        "n_ubatch": options.n_ubatch,
        "use_extra_bufts": options.use_extra_bufts,
        "n_gpu_layers": options.n_gpu_layers,
        "total_bytes": candidate.total_bytes,
        "fits": candidate.fits,
        "why_not": candidate.why_not,
        "chosen": plan is not None and candidate is plan.chosen,
    }


def _text(
    device: Device, plan: Plan | None, candidates: Sequence[Candidate], checked: DryLoad | None
) -> list[str]:
    lines = ["Device", *_device_lines(device)]
    if plan is not None:
        chosen = plan.chosen
        lines += [
            "",
            f"Memory of {Path(chosen.model).name} {chosen.quantization}, n_ctx {chosen.options.n_ctx}",
        ]
        lines += _memory_lines(plan)
        if checked is not None:
            lines += ["", "llama.cpp's own reservations", *_check_lines(plan, checked)]
        lines += ["", "Plan", *(f"  {s.what:<16} {_short(s.value):<22} {s.why}" for s in plan.steps)]
        lines += [f"  note: {note}" for note in plan.notes]
    return [*lines, "", "Candidates", *_candidate_lines(candidates, plan)]


def _device_lines(device: Device) -> list[str]:
    known, unknown = [], []
    for name, reading in device.readings():
        if reading.known:
            known.append(f"  {name:<{_NAME}} {_shown(name, reading.value):<44} {reading.source}")
        else:
            unknown.append(name)
    gpus = [
        f"  {gpu.backend:<{_NAME}} {f'{gpu.name}, {mib(gpu.free_bytes)} free':<44} llama.cpp"
        for gpu in device.accelerators
    ]
    return [*known, *gpus, f"  {'unknown (reasons in --json)':<{_NAME}} {', '.join(unknown)}"]


def _short(value: object) -> str:
    return Path(value).name if isinstance(value, str) else str(value)


def _shown(name: str, value: object) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return mib(value)
    if isinstance(value, (tuple, frozenset)):
        return " ".join(map(str, sorted(value) if isinstance(value, frozenset) else value))
    if name == "heat.throttled" and value == "":
        return "no"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _memory_lines(plan: Plan) -> list[str]:
    """A bar whose letters are the terms', and the terms below it."""
    parts = {name: n for name, n in plan.chosen.footprint.terms().items() if n}
    parts |= {"headroom": plan.headroom_bytes, "free": max(0, plan.free_bytes)}
    letters = {
        name: "WPKSCOTRH."[i] for i, name in enumerate((*plan.chosen.footprint.terms(), "headroom", "free"))
    }
    total = sum(parts.values()) or 1
    bar, drawn, so_far = "", 0, 0
    for name, n_bytes in parts.items():
        so_far += n_bytes
        end = round(_BAR_CELLS * so_far / total)
        bar, drawn = bar + letters[name] * (end - drawn), end
    lines = [f"  [{bar}] {mib(plan.available_bytes)} available"]
    for name, n_bytes in parts.items():
        lines.append(f"  {letters[name]} {name:<{_NAME - 2}} {mib(n_bytes):>11}")
    if plan.chosen.footprint.accelerator_bytes:
        lines.append(f"    {'on the GPU':<{_NAME - 2}} {mib(plan.chosen.footprint.accelerator_bytes):>11}")
    return lines


def _candidate_lines(candidates: Sequence[Candidate], plan: Plan | None) -> list[str]:
    """One line for each model, file, context and KV type: the best step size that fits, or else the smallest."""
    shown: dict[tuple[object, ...], Candidate] = {}
    for c in candidates:
        key = (c.model, c.quantization, c.options.n_ctx, c.options.kv_type_k)
        held = shown.get(key)
        if held is None or (not held.fits and (c.fits or c.total_bytes < held.total_bytes)):
            shown[key] = c
    names = {c.model: Path(c.model).name for c in shown.values()}
    width = max(map(len, names.values()))
    lines = []
    for c in shown.values():
        mark = ">" if plan is not None and c is plan.chosen else " "
        state = ("fits" if c.fits else c.why_not) + (", here" if c.installed else "")
        o = c.options
        lines.append(
            f"{mark} {names[c.model]:<{width}} {c.quantization:<7} n_ctx {o.n_ctx:>6} {o.kv_type_k:<4} "
            f"n_ubatch {o.n_ubatch:>3} {mib(c.total_bytes):>10}  {state}"
        )
    return lines


def _check(plan: Plan | None, path: Path | None) -> DryLoad | None:
    """llama.cpp's own figures for the chosen options."""
    from edge.engine.dry_load import dry_load
    from edge.models.installed import find_installed
    from edge.models.reference import parse_reference

    if plan is None:
        return None
    chosen = plan.chosen
    if path is None:
        path = find_installed(parse_reference(f"{chosen.model}:{chosen.quantization}"))
    if path is None:
        raise PlanError(f"--check needs the file of {chosen.model}:{chosen.quantization}; pull it first")
    options = chosen.options
    return dry_load(
        path,
        n_ctx=options.n_ctx,
        kv_type=options.kv_type_k,
        n_ubatch=options.n_ubatch,
        n_parallel=options.n_parallel,
        n_slots=plan.n_slots,
        flash_attn=options.flash_attn,
    )


def _check_lines(plan: Plan, checked: DryLoad) -> list[str]:
    import dataclasses

    planned = plan.chosen.footprint.terms()
    return [
        f"  {name:<{_NAME}} {mib(n):>11}, planned {mib(planned[name])}"
        for name, n in dataclasses.asdict(checked).items()
    ]
