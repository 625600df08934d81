"""How a reference becomes a file: what is on this machine is used, what is not is fetched or built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.errors import CatalogueError, HubUnreachable
from edge.models.catalogue import BuiltSource, HubSource, ModelEntry
from edge.models.download import OnBytes, Transfer
from edge.models.files import list_files
from edge.models.hub_cache import cache_dir
from edge.models.installed import find_installed, installed_groups
from edge.models.reference import Reference, parse_reference

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model file that is there, and the catalogue's row for it if it has one."""

    path: Path
    entry: ModelEntry | None = None


def ignore_bytes(_: Transfer) -> None:
    """For callers that show no progress."""


def resolve(
    ref: str, progress: Progress, *, on_bytes: OnBytes = ignore_bytes, refresh: bool = False
) -> ResolvedModel:
    """The file for REF, fetched or built if it is not here yet. progress is told what is being done, a line each.

    on_bytes: called as bytes come from the hub. refresh: ask the hub also when a fitting file is here; if it cannot
    be reached, that file is used. A path is not looked at: the loader says what is wrong with it.
    """
    reference = parse_reference(ref)
    if reference.path is not None:
        return ResolvedModel(reference.path)
    installed = find_installed(reference)
    if installed is not None and not (refresh and _is_from_hub(installed)):
        return ResolvedModel(installed, reference.entry)
    try:
        return ResolvedModel(_fetch(reference, progress, on_bytes), reference.entry)
    except HubUnreachable as exc:
        if installed is not None:
            progress(f"{exc}; using {installed}")
            return ResolvedModel(installed, reference.entry)
        here = [file.file for group in installed_groups(reference) for file in group]
        raise type(exc)(f"{exc}; on this machine: {list_files(here)}" if here else str(exc)) from exc


def _is_from_hub(path: Path) -> bool:
    """Whether the hub may have a newer version: not of what was made here or came from the package index."""
    return path.is_relative_to(cache_dir())


def _fetch(reference: Reference, progress: Progress, on_bytes: OnBytes) -> Path:
    from edge.models.hub import fetch_from_hub, with_gguf_twin

    entry, wanted = reference.entry, reference.quantization
    if reference.folder is not None:
        here = [file.file for group in installed_groups(reference) for file in group]
        asked = f"{wanted} file" if wanted else "file that is clearly meant"
        raise CatalogueError(f"{reference.folder} has no {asked}; there is {list_files(here)}")
    if entry is None:
        repos = with_gguf_twin(reference.repo or "")
        return fetch_from_hub(repos, wanted, (), tell=progress, on_bytes=on_bytes)
    for source in entry.sources:
        if isinstance(source, HubSource):
            return fetch_from_hub(source.repos, wanted, entry.quantizations, tell=progress, on_bytes=on_bytes)
        if wanted is None or wanted.upper() in entry.quantizations:
            return _built(reference, entry, source, progress)
    offered = ", ".join(entry.quantizations)
    raise CatalogueError(f"{entry.name} has no quantization {wanted!r}; there is {offered}")


def _built(reference: Reference, entry: ModelEntry, source: BuiltSource, progress: Progress) -> Path:
    from edge.models.build import build

    build(entry, source, progress)
    path = find_installed(reference)
    if path is None:
        raise CatalogueError(
            f"{reference.text} was built and has gone since; is another process removing it?"
        )
    return path
