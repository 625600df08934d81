"""The model files that are on this machine: in this program's folder and in the hub's cache.

Listing and removing. Nothing is fetched here, and no file outside those places is ever removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.errors import CatalogueError
from edge.models.built import MARKER, built_files, remove_scratch
from edge.models.catalogue import BuiltSource, HubSource, ModelEntry, catalogue
from edge.models.files import GgufFile, choose_file, model_files
from edge.models.folders import models_dir
from edge.models.hub_cache import cached_files, cached_repos, remove_cached, remove_partials
from edge.models.reference import Reference, parse_reference

Origin = Literal["folder", "hub"]


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """One model file. name: of the model, as a REF; file: how its folder or repository calls it."""

    name: str
    file: GgufFile
    path: Path
    origin: Origin

    @property
    def ref(self) -> str:
        """A REF for exactly this file."""
        return f"{self.name}:{self.file.quantization or self.file.path}"


def find_installed(reference: Reference) -> Path | None:
    """The file for a reference if it is already on this machine. Raises CatalogueError if several fit."""
    groups = installed_groups(reference)
    preferred = reference.entry.quantizations if reference.entry else ()
    for wanted in [reference.quantization] if reference.quantization else [*preferred, None]:
        for group in groups:
            chosen = choose_file(
                [there.file for there in group], wanted, where=group[0].name if group else ""
            )
            for there in group:
                if there.file is chosen:
                    return there.path
    return None


def installed_groups(reference: Reference, *, damaged: bool = False) -> list[list[InstalledFile]]:
    """All files of the model that a reference names, whatever the quantization; a group for each place.

    damaged: also those that do not count, being half made or of an earlier version's parts.
    """
    from edge.models.hub import with_gguf_twin

    if reference.folder is not None:
        return [_in_folder(reference.folder)]
    if reference.repo is not None:
        return [_in_cache(repo, repo) for repo in with_gguf_twin(reference.repo)]
    return _of_entry(reference.entry, damaged=damaged) if reference.entry else []


def _of_entry(entry: ModelEntry, *, damaged: bool = False) -> list[list[InstalledFile]]:
    here = _in_folder(models_dir() / entry.name)
    for source in entry.sources:
        if isinstance(source, BuiltSource) and not damaged:
            whole = built_files(entry, source)
            here = [there for there in here if there.path in whole]
    repos = [repo for source in entry.sources if isinstance(source, HubSource) for repo in source.repos]
    return [here, *(_in_cache(repo, entry.name) for repo in repos)]


def _in_folder(folder: Path) -> list[InstalledFile]:
    if not folder.is_dir():
        return []
    paths = [p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith(".gguf")]
    files = model_files([(path.name, path.stat().st_size) for path in paths])
    return [InstalledFile(folder.name, file, folder / file.path, "folder") for file in files]


def _in_cache(repo: str, name: str) -> list[InstalledFile]:
    return [InstalledFile(name, there.file, there.path, "hub") for there in cached_files(repo)]


def all_installed() -> Iterator[InstalledFile]:
    """Every model file that a REF can name without a path: the catalogue's first, then others."""
    known_repos = set()
    for entry in catalogue().values():
        for group in _of_entry(entry):
            yield from group
        known_repos |= {repo.lower() for s in entry.sources if isinstance(s, HubSource) for repo in s.repos}
    folders = sorted(models_dir().iterdir()) if models_dir().is_dir() else []
    for folder in folders:
        if folder.name not in catalogue() and not folder.name.startswith("."):
            yield from _in_folder(folder)
    for repo in cached_repos():
        if repo.lower() not in known_repos:
            yield from _in_cache(repo, repo)


@dataclass(frozen=True, slots=True)
class Removed:
    """What `remove` took away."""

    paths: tuple[Path, ...]
    freed_bytes: int


def remove(ref: str) -> Removed:
    """Removes the files of a model from this program's folder and the hub's cache; with :QUANT only that file.

    Half-fetched and half-built files of a model that is removed whole go with it. Raises CatalogueError when there is
    nothing to remove, and for a file that belongs to somebody else.
    """
    reference = parse_reference(ref)
    files = _to_remove(reference)
    freed = sum(_remove_file(there) for there in files)
    partials = _remove_partials(reference) if reference.quantization is None else []
    freed += sum(size for _, size in partials)
    if not files and not partials:
        raise CatalogueError(f"{ref} is not installed, neither in {models_dir()} nor in the hub's cache")
    return Removed((*(there.path for there in files), *(path for path, _ in partials)), freed)


def _to_remove(reference: Reference) -> list[InstalledFile]:
    if reference.path is not None:
        found = [there for there in all_installed() if there.path.absolute() == reference.path.absolute()]
        if not found:
            raise CatalogueError(
                f"{reference.path} is not in this program's folders; delete a file of your own yourself"
            )
    else:
        found = [there for group in installed_groups(reference, damaged=True) for there in group]
        if reference.quantization is not None:
            chosen = choose_file([f.file for f in found], reference.quantization, where=reference.text)
            found = [there for there in found if there.file is chosen]
    return found


def _remove_file(there: InstalledFile) -> int:
    """Takes one file away; the bytes that are free now."""
    if there.origin == "hub":
        return remove_cached(there.path)
    size = 0 if there.path.is_symlink() else there.path.stat().st_size  # what a link leads to is not ours
    there.path.unlink()
    folder = there.path.parent
    if [path.name for path in folder.iterdir()] == [MARKER]:
        (folder / MARKER).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
    return size


def _remove_partials(reference: Reference) -> list[tuple[Path, int]]:
    from edge.models.hub import with_gguf_twin

    repos: list[str] = list(with_gguf_twin(reference.repo)) if reference.repo else []
    for source in reference.entry.sources if reference.entry else ():
        repos += source.repos if isinstance(source, HubSource) else ()
    removed = remove_scratch(reference.entry) if reference.entry else []
    return removed + [one for repo in repos for one in remove_partials(repo)]
