"""The choice: the best way to run a model that fits the memory that is free.

The order of preference is data in the device profile: candidates are tried in it, and the first that fits is taken.
Nothing here detects, downloads or loads anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from profiles.device import Device
from profiles.device_profile import DeviceProfile
from profiles.errors import NothingFits, PinError
from profiles.footprint import RunOptions, footprint, n_slots, offloaded_share
from profiles.plan import MIB, Candidate, Pins, Plan, Step, mib
from profiles.shape import TYPE_SIZES, ModelFacts, ModelShape, Weights


def choose(
    device: Device,
    profile: DeviceProfile,
    models: Sequence[ModelFacts],
    pins: Pins,
    *,
    others: Sequence[ModelFacts] = (),
    why_profile: str = "",
) -> Plan:
    """The first candidate in the profile's order of preference that fits.

    models: those that may be chosen from, best first; one if the user has named it. others: what to name if none fits.
    Raises NothingFits with what is missing, PinError for a pin that no model has.
    """
    check_pins(models, pins)
    available = device.available_bytes
    budget = max(0, (available.value or 0) - profile.headroom_bytes)
    candidates = [
        _assess(facts, weights, options, device, profile, pins, budget)
        for facts, weights, options in _combinations(profile, models, pins)
    ]
    ordered = [candidate for _, candidate in sorted(candidates, key=lambda item: item[0])]
    chosen = next((candidate for candidate in ordered if candidate.fits), None)
    if available.value is None:
        chosen = min(ordered, key=lambda candidate: candidate.total_bytes)
    if chosen is None:
        fitting = _what_fits(device, profile, models, others, pins)
        raise _nothing_fits(ordered, budget, device, profile, fitting)
    n_threads, why_threads = _threads(device, profile, pins)
    steps = (
        Step("device profile", profile.name, why_profile or "as given"),
        Step("memory budget", mib(budget), _why_budget(device, profile)),
        *_explain(chosen, ordered, profile, pins),
        Step("n_gpu_layers", chosen.options.n_gpu_layers, _why_gpu(device, pins)),
        Step("n_threads", n_threads, why_threads),
    )
    return Plan(
        device_profile=profile.name,
        chosen=chosen,
        n_batch=max(pins.n_batch or profile.run.n_batch, chosen.options.n_ubatch),
        n_threads=n_threads,
        n_slots=n_slots(_shape_of(chosen, models), chosen.options),
        available_bytes=available.value or 0,
        headroom_bytes=profile.headroom_bytes,
        steps=steps,
        candidates=tuple(ordered),
        notes=(*_warnings(device, chosen, models), *profile.notes),
    )


def check_pins(models: Sequence[ModelFacts], pins: Pins) -> None:
    """Raises PinError for a value that none of the models allows."""
    n_ctx_train = max(facts.shape.n_ctx_train for facts in models)
    if pins.n_ctx is not None and not 1 <= pins.n_ctx <= n_ctx_train:
        raise PinError(f"n_ctx is {pins.n_ctx}; this model allows 1 to {n_ctx_train}")
    allowed = ("f32", "f16", "q8_0")
    if pins.kv_type is not None and pins.kv_type not in allowed:
        raise PinError(f"kv_type is {pins.kv_type!r}; allowed are {', '.join(allowed)}")
    n_batch = pins.n_batch or 8192
    if pins.n_ubatch is not None and not 1 <= pins.n_ubatch <= n_batch:
        raise PinError(f"n_ubatch is {pins.n_ubatch}; allowed is 1 to {n_batch}")
    if pins.n_threads is not None and not 1 <= pins.n_threads <= 512:
        raise PinError(f"n_threads is {pins.n_threads}; allowed is 1 to 512")
    if not 1 <= pins.n_parallel <= 64:
        raise PinError(f"parallel is {pins.n_parallel}; allowed is 1 to 64")
    if pins.kv_type is not None and not any(can_hold(facts.shape, pins.kv_type) for facts in models):
        head = models[0].shape.head_dim_k
        raise PinError(
            f"kv_type is {pins.kv_type!r}, whose blocks of 32 do not divide this model's heads of {head}"
        )
    there = dict.fromkeys(w.quantization for facts in models for w in facts.weights)
    if pins.quantization is not None and pins.quantization.upper() not in there:
        raise PinError(f"there is no quantization {pins.quantization!r} of it; there is {', '.join(there)}")


def _combinations(
    profile: DeviceProfile, models: Sequence[ModelFacts], pins: Pins
) -> Iterator[tuple[ModelFacts, Weights, RunOptions]]:
    kv_types = (pins.kv_type,) if pins.kv_type else profile.run.kv_types
    n_ubatches = (pins.n_ubatch,) if pins.n_ubatch else profile.run.n_ubatch
    extras = profile.run.use_extra_bufts if pins.use_extra_bufts is None else (pins.use_extra_bufts,)
    for facts in models:
        contexts = (pins.n_ctx,) if pins.n_ctx else contexts_for(facts.shape, profile)
        for weights in _allowed_weights(facts, pins):
            for n_ctx, kv_type, n_ubatch, extra in itertools.product(contexts, kv_types, n_ubatches, extras):
                if n_ctx <= facts.shape.n_ctx_train and can_hold(facts.shape, kv_type):
                    yield facts, weights, _options(n_ctx, kv_type, n_ubatch, extra, profile, pins)


def can_hold(shape: ModelShape, kv_type: str) -> bool:
    """Whether whole blocks of the type make up a head, which llama.cpp insists on."""
    block = TYPE_SIZES[kv_type.upper()][0]
    return shape.head_dim_k % block == 0 and shape.head_dim_v % block == 0


def contexts_for(shape: ModelShape, profile: DeviceProfile) -> tuple[int, ...]:
    """The profile's contexts that the model was made for; its own where it was made for less than all of them."""
    return tuple(n for n in profile.run.n_ctx if n <= shape.n_ctx_max) or (shape.n_ctx_max,)


def _allowed_weights(facts: ModelFacts, pins: Pins) -> list[Weights]:
    wanted = pins.quantization.upper() if pins.quantization else None
    return [w for w in facts.weights if wanted in (None, w.quantization)]


def _options(
    n_ctx: int, kv_type: str, n_ubatch: int, use_extra_bufts: bool, profile: DeviceProfile, pins: Pins
) -> RunOptions:
    state_cache = (
        profile.memory.state_cache_mib * MIB if pins.state_cache_bytes is None else pins.state_cache_bytes
    )
    return RunOptions(
        n_ctx=n_ctx,
        kv_type_k=kv_type,
        kv_type_v=kv_type,
        n_ubatch=min(n_ubatch, n_ctx),  # more tokens at once than the context holds are never there
        n_parallel=pins.n_parallel,
        use_extra_bufts=use_extra_bufts,
        state_cache_bytes=state_cache,
    )


def _assess(
    facts: ModelFacts,
    weights: Weights,
    options: RunOptions,
    device: Device,
    profile: DeviceProfile,
    pins: Pins,
    budget: int,
) -> tuple[tuple[int, ...], Candidate]:
    """A candidate, behind its place in the order of preference."""
    options = with_gpu_layers(facts.shape, weights, options, device, profile, pins)
    needed = footprint(
        facts.shape,
        weights,
        options,
        cpu_features=device.cpu.features.value or (),
        unified_memory=_is_unified(device),
    )
    why_not = "" if needed.total_bytes <= budget else f"{mib(needed.total_bytes - budget)} too much"
    candidate = Candidate(
        model=facts.ref,
        quantization=weights.quantization,
        installed=weights.installed,
        options=options,
        footprint=needed,
        fits=not why_not,
        why_not=why_not,
    )
    return _rank(candidate, profile, facts), candidate


def _rank(candidate: Candidate, profile: DeviceProfile, facts: ModelFacts) -> tuple[int, ...]:
    run, options = profile.run, candidate.options
    places: dict[str, tuple[int, ...]] = {
        "model": (_place(run.models, facts.ref),),
        # A file that is here goes before one that must be downloaded.
        "quantization": (not candidate.installed, _place(run.quantizations, candidate.quantization)),
        "n_ctx": (_place(run.n_ctx, options.n_ctx),),
        "kv_type": (_place(run.kv_types, options.kv_type_k),),
        "n_ubatch": (_place(run.n_ubatch, options.n_ubatch),),
        "use_extra_bufts": (_place(run.use_extra_bufts, options.use_extra_bufts),),
    }
    return tuple(itertools.chain.from_iterable(places[dimension] for dimension in run.order))


def _place(preference: Sequence[object], value: object) -> int:
    return preference.index(value) if value in preference else len(preference)


def _is_unified(device: Device) -> bool:
    return any(gpu.unified for gpu in device.accelerators) or (
        bool(device.board.unified_memory.value) and device.gpu_backend.known
    )


def with_gpu_layers(
    shape: ModelShape,
    weights: Weights,
    options: RunOptions,
    device: Device,
    profile: DeviceProfile,
    pins: Pins,
) -> RunOptions:
    """The options with as many layers on the GPU as its free memory holds; none where llama.cpp has no GPU.

    Offloaded weights are read without mapping the file, so that they are not in memory twice.
    """
    limit = shape.n_layer + 1 if profile.run.gpu_layers == "all" else profile.run.gpu_layers
    if pins.n_gpu_layers is not None:
        limit = pins.n_gpu_layers
    if not limit or not device.gpu_backend.known:
        return options
    if not _is_unified(device) and pins.n_gpu_layers is None:
        free = max((gpu.free_bytes for gpu in device.accelerators), default=0)
        limit = _layers_within(shape, weights, options, min(limit, shape.n_layer + 1), free)
    return replace(options, n_gpu_layers=limit, use_mmap=limit == 0)


def _layers_within(
    shape: ModelShape, weights: Weights, options: RunOptions, limit: int, free_bytes: int
) -> int:
    for n in range(limit, 0, -1):
        trial = replace(options, n_gpu_layers=n, use_mmap=False)
        if footprint(shape, weights, trial).accelerator_bytes <= free_bytes:
            return n
    return 0


def _explain(
    chosen: Candidate, ordered: Sequence[Candidate], profile: DeviceProfile, pins: Pins
) -> Iterator[Step]:
    """For each dimension, in the order of preference: what was better and why it could not be had."""
    left = list(ordered)
    for dimension in profile.run.order:
        read = _READ[dimension]
        value, offered = read(chosen), list(dict.fromkeys(map(read, left)))
        better = offered[: offered.index(value)]
        if getattr(pins, dimension, None) is not None:
            why = "as asked"
        elif better:
            why = "; ".join(_why_not(v, [c for c in left if read(c) == v]) for v in better)
        else:
            why = _why_first(dimension, chosen, left, n_all=len(set(map(read, ordered))))
        yield Step(dimension, value, why)
        left = [c for c in left if read(c) == value]


def _why_first(dimension: str, chosen: Candidate, left: Sequence[Candidate], *, n_all: int) -> str:
    if len(set(map(_READ[dimension], left))) > 1:
        is_here = dimension == "quantization" and chosen.installed and not all(c.installed for c in left)
        return "it is on this machine" if is_here else "first choice of the profile"
    if dimension == "model" and n_all > 1:
        return f"the only one that was made for {chosen.options.n_ctx} tokens"
    if dimension == "n_ctx":
        return "the longest of the profile's that the model was made for"
    return "there is no other"


_READ: dict[str, Callable[[Candidate], object]] = {
    "model": lambda c: c.model,
    "quantization": lambda c: c.quantization,
    "n_ctx": lambda c: c.options.n_ctx,
    "kv_type": lambda c: c.options.kv_type_k,
    "n_ubatch": lambda c: c.options.n_ubatch,
    "use_extra_bufts": lambda c: c.options.use_extra_bufts,
}


def _why_not(value: object, candidates: Sequence[Candidate]) -> str:
    least = min(candidates, key=lambda c: c.total_bytes)
    return f"{value} needs {mib(least.total_bytes)} at least, {least.why_not}"


def _why_budget(device: Device, profile: DeviceProfile) -> str:
    available = device.available_bytes
    if available.value is None:
        return (
            f"the free memory is unknown ({available.source}: {available.reason}), so the smallest is taken"
        )
    headroom = mib(profile.headroom_bytes)
    return f"{mib(available.value)} available ({available.source}), {headroom} left free by the profile"


def _why_gpu(device: Device, pins: Pins) -> str:
    if pins.n_gpu_layers is not None:
        return "as asked"
    if not device.gpu_backend.known:
        return f"llama.cpp has no GPU: {device.gpu_backend.reason}"
    where = "in the machine's own memory" if _is_unified(device) else "what its free memory holds"
    return f"{device.gpu_backend.value}, {where}"


def _threads(device: Device, profile: DeviceProfile, pins: Pins) -> tuple[int, str]:
    """ggml's threads wait for each other at every step: one more than there are free cores slows all of them."""
    if pins.n_threads is not None:
        return pins.n_threads, "as asked"
    cpu, wanted = device.cpu, profile.run.threads
    cores = {"performance": cpu.n_performance, "physical": cpu.n_physical}.get(str(wanted))
    n = (cores.value or 1) if cores else int(wanted)
    why = [f"{n} {wanted} cores ({cores.source})" if cores else "as the profile says"]
    for limit, what in (
        (cpu.n_usable.value, "usable"),
        (len(device.limits.cpus.value or ()) or None, "in the cpuset"),
    ):
        if limit and limit < n:
            n = limit
            why.append(f"{limit} {what}")
    quota = device.limits.cpu_quota
    if quota.value and quota.value < n:
        n = max(1, int(quota.value))
        why.append(f"a quota of {quota.value:g} cores ({quota.source})")
    return n, ", ".join(why)


def _shape_of(chosen: Candidate, models: Sequence[ModelFacts]) -> ModelShape:
    return next(facts.shape for facts in models if facts.ref == chosen.model)


def _warnings(device: Device, chosen: Candidate, models: Sequence[ModelFacts]) -> Iterator[str]:
    shape = _shape_of(chosen, models)
    if shape.n_ctx_tuned and chosen.options.n_ctx > shape.n_ctx_tuned:
        yield f"{chosen.model} was tuned on {shape.n_ctx_tuned} tokens; beyond that its answers get worse"
    if device.board.kind.value == "jetson" and not device.gpu_backend.known:
        yield "this is a Jetson, but llama.cpp was built without CUDA: its GPU is not used (README, Build time)"
    full = device.memory.pressure_full_percent.value
    if full:
        yield f"memory is under pressure: everything waited for it {full:g} % of the last ten seconds"
    if device.memory.zram_bytes.value:
        yield f"zram of {mib(device.memory.zram_bytes.value)} is compressed memory and not counted as free"
    if device.heat.throttled.value:
        yield f"the machine slows itself down: {device.heat.throttled.value} ({device.heat.throttled.source})"
    if chosen.options.n_gpu_layers and offloaded_share(shape, chosen.options.n_gpu_layers):
        yield "memory of offloaded layers is arithmetic and was never measured"


def _what_fits(
    device: Device,
    profile: DeviceProfile,
    models: Sequence[ModelFacts],
    others: Sequence[ModelFacts],
    pins: Pins,
) -> str:
    """What could be had instead: the same without what was fixed, or another model; empty if nothing can."""
    for offered, how in ((models, "without what was fixed, "), (others, "")):
        if offered and (offered is others or pins != Pins()):
            try:
                fits = choose(device, profile, offered, Pins()).chosen
            except NothingFits:
                continue
            return f"{how}{_described(fits)} would fit"
    return ""


def _described(candidate: Candidate) -> str:
    o = candidate.options
    kind = f"{candidate.model} {candidate.quantization}"
    return f"{kind} with n_ctx={o.n_ctx}, {o.kv_type_k} KV and n_ubatch={o.n_ubatch}"


def _nothing_fits(
    ordered: Sequence[Candidate], budget: int, device: Device, profile: DeviceProfile, fitting: str
) -> NothingFits:
    least = min(ordered, key=lambda c: c.total_bytes)
    missing = least.total_bytes - budget
    smallest = _described(least)
    advice = "; ".join(profile.memory.free_advice)
    return NothingFits(
        f"no model fits: the smallest, {smallest}, needs {mib(least.total_bytes)}, {mib(budget)} may be used "
        f"({_why_budget(device, profile)}); free {mib(missing)}"
        + (f": {advice}" if advice else "")
        + (f"; {fitting}" if fitting else ""),
        needed_bytes=least.total_bytes,
        budget_bytes=budget,
        candidates=tuple(ordered),
    )
