"""From a model reference and what the user has fixed to a plan and an engine: `run`, `serve` and `profile` share it.

Joins `profiles`, the catalogue and the engine, and decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.progress import fetch_view
from edge.errors import CatalogueError, EdgeError, ModelError
from profiles.errors import ProfileError
from profiles.plan import Pins, Plan

if TYPE_CHECKING:
    from edge.engine.context import ContextOptions
    from edge.engine.engine import Engine
    from edge.engine.gguf_header import GgufHeader
    from edge.engine.model import ModelOptions
    from edge.engine.state_cache import StateCacheOptions
    from edge.models.catalogue import ModelEntry
    from edge.models.reference import Reference
    from profiles.device import Device
    from profiles.device_profile import DeviceProfile
    from profiles.shape import ModelFacts

THIS_MACHINE = Path("/")
ANY_MODEL = "auto"


class PlanError(EdgeError):
    """A ProfileError as this program's own: one line, exit code 1."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """ProfileError as an error of this program."""
    try:
        yield
    except ProfileError as exc:
        raise PlanError(str(exc)) from exc


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and the reference that its model is loaded by."""

    ref: str
    plan: Plan

    def model_options(self) -> ModelOptions:
        """The plan in the engine's words: how the weights are held."""
        from edge.engine.model import ModelOptions

        options = self.plan.chosen.options
        return ModelOptions(
            n_gpu_layers=options.n_gpu_layers,
            use_mmap=options.use_mmap,
            use_extra_bufts=options.use_extra_bufts,
        )

    def context_options(self) -> ContextOptions:
        """The plan in the engine's words: how the context is made."""
        from edge.engine.context import ContextOptions

        options = self.plan.chosen.options
        return ContextOptions(
            n_ctx=options.n_ctx,
            n_batch=self.plan.n_batch,
            n_ubatch=options.n_ubatch,
            n_threads=self.plan.n_threads,
            flash_attn=options.flash_attn,
            kv_type=options.kv_type_k,
            snapshot_bytes=options.state_cache_bytes,
        )


def make_plan(ref: str, pins: Pins, *, profile_file: Path | None = None) -> Planned:
    """How to run `ref` on this machine, now. `auto` leaves the model open, too.

    A model of which nothing is known before it is here (user/repo on the hub) is fetched first.
    Raises PlanError when nothing fits, ModelError and CatalogueError for the reference.
    """
    with translated_errors():
        device = detect(THIS_MACHINE)
        profile, why = profile_of(device, profile_file)
        found = find_models(ref, pins, profile, fetch=True)
        from profiles.choice import choose

        others = known_models(profile)
        plan = choose(device, profile, found.models, found.pins, others=others, why_profile=why)
    return Planned(found.loadable(plan), plan)


def open_planned(
    ref: str,
    pins: Pins,
    *,
    max_queue: int = 64,
    profile_file: Path | None = None,
    state_cache: StateCacheOptions | None = None,
) -> tuple[Engine, Planned]:
    """The engine for a model reference, as large as the machine allows; fetches the model if it is not here.

    max_queue, state_cache: see `Engine`.
    """
    from edge.models.load import load

    planned = make_plan(ref, pins, profile_file=profile_file)
    with fetch_view() as view:
        engine = load(
            planned.ref,
            context=planned.context_options(),
            model=planned.model_options(),
            n_parallel=pins.n_parallel,
            max_queue=max_queue,
            state_cache=state_cache,
            progress=view.tell,
            on_bytes=view.on_bytes,
        )
    return engine, planned


def detect(root: Path) -> Device:
    """The device below `root`, with what llama.cpp knows of GPUs. Loads llama.cpp only where it has a GPU backend."""
    from edge.engine.gpu import gpu_backend, gpu_devices
    from profiles.device import Accelerator, detect_device
    from profiles.reading import Reading

    name, where = gpu_backend()
    backend = Reading(name, where, "" if name else "no GPU backend was built")
    gpus = gpu_devices() if name and root == THIS_MACHINE else ()
    accelerators = tuple(
        Accelerator(
            name=gpu.name,
            backend=str(name),
            total_bytes=gpu.total_bytes,
            free_bytes=gpu.free_bytes,
            unified=gpu.integrated,
        )
        for gpu in gpus
    )
    return detect_device(root, gpu_backend=backend, accelerators=accelerators)


def profile_of(device: Device, profile_file: Path | None) -> tuple[DeviceProfile, str]:
    """The device's profile, with the user's own file over it."""
    from profiles.device_profile import profile_for

    return profile_for(device, profile_file)


@dataclass(frozen=True, slots=True)
class FoundModels:
    """The models that a reference leaves to choose from, and the pins with a quantization named in it."""

    models: Sequence[ModelFacts]
    pins: Pins
    path: Path | None = None  # set when it is exactly this file

    def loadable(self, plan: Plan) -> str:
        """What the engine is opened with."""
        return str(self.path) if self.path else f"{plan.chosen.model}:{plan.chosen.quantization}"


def known_models(profile: DeviceProfile) -> Sequence[ModelFacts]:
    """The catalogue's models that the profile names, without looking into files."""
    from edge.models.catalogue import catalogue

    known = [catalogue()[name] for name in profile.run.models if name in catalogue()]
    return [catalogue_facts(entry, measure=False) for entry in known]


def find_models(ref: str, pins: Pins, profile: DeviceProfile, *, fetch: bool) -> FoundModels:
    """What is known of the models that `ref` means.

    fetch: get a file of which nothing is known; otherwise that is a CatalogueError.
    """
    from edge.models.reference import parse_reference

    if ref == ANY_MODEL:
        return FoundModels(known_models(profile), pins)
    reference = parse_reference(ref)
    pins = replace(pins, quantization=reference.quantization or pins.quantization)
    if reference.entry is not None:
        return FoundModels([catalogue_facts(reference.entry)], pins)
    path = reference.path or _known_file(reference, fetch=fetch)
    return FoundModels([file_facts(path)], replace(pins, quantization=None), path)


def _known_file(reference: Reference, *, fetch: bool) -> Path:
    from edge.models.installed import find_installed
    from edge.models.store import resolve

    if (path := find_installed(reference)) is not None:
        return path
    if not fetch and reference.repo is not None:
        raise CatalogueError(
            f"{reference.text} is not on this machine, so its size is unknown; pull it first"
        )
    with fetch_view() as view:
        return resolve(reference.text, view.tell, on_bytes=view.on_bytes).path


def catalogue_facts(entry: ModelEntry, *, measure: bool = True) -> ModelFacts:
    """A known model: the files that are here by their header, the others by the catalogue's numbers.

    measure: look the files over; that takes 0.6 s the first time for one with a large vocabulary, 5 ms then. A file
    that cannot be run counts by the catalogue's numbers, too: loading it says what is wrong.
    """
    from edge.cli.model_facts import entry_shape, entry_weights, header_shape, header_weights
    from edge.models.installed import installed_groups
    from edge.models.reference import Reference
    from profiles.shape import ModelFacts

    groups = installed_groups(Reference(entry.name, entry=entry))
    here = {there.file.quantization: there.path for group in reversed(groups) for there in group}
    shape, weights = entry_shape(entry), []
    for quantization in dict.fromkeys((*entry.quantizations, *here)):
        header = _runnable_header(here[quantization]) if quantization in here and measure else None
        if header is not None:
            shape = replace(header_shape(header, entry.name), n_ctx_tuned=entry.n_ctx_tuned)
            # By the file's name, which is what a reference finds it by.
            weights.append(replace(header_weights(header), quantization=str(quantization)))
        elif quantization in entry.shape.file_bytes:
            weights.append(entry_weights(entry, quantization, installed=quantization in here))
    return ModelFacts(entry.name, shape, tuple(weights))


def _runnable_header(path: Path) -> GgufHeader | None:
    from edge.engine.intake import examine_chat

    try:
        return examine_chat(path).header
    except ModelError:
        return None


def file_facts(path: Path) -> ModelFacts:
    """A model file, by its header. Raises ModelError for one that cannot be run."""
    from edge.cli.model_facts import header_shape, header_weights
    from edge.engine.intake import examine_chat
    from profiles.shape import ModelFacts

    header = examine_chat(path).header
    return ModelFacts(str(path), header_shape(header, path.name), (header_weights(header),))
