"""Gets a model file to where the service can read it, as the service's own user; tries it there, and plans its memory.

The running service is not touched here. What is fetched as that user belongs to it, and what it cannot read fails here;
nothing is written to the caller's own folders.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.deploy.errors import DeployError
from edge.models.reference import parse_reference
from profiles.health import read_health

_MIB = 1 << 20
# Beside the weights: Python and libraries, a vocabulary, a context of 1,024 tokens; and something for the others.
_TRIAL_BYTES = 512 * _MIB
_SPARE_BYTES = 256 * _MIB
_PLANNED = ("N_CTX", "PARALLEL", "KV_TYPE")  # the settings that a plan depends on


@dataclass(frozen=True, slots=True)
class Place:
    """The service's folder. uid, gid: its owner's, which children run as; None as this process does."""

    state_dir: Path
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def of(cls, state_dir: Path) -> Place:
        """Root works for the folder's owner; anybody else for himself."""
        try:
            stat = state_dir.stat()
            (state_dir / "models").stat()
        except OSError as exc:
            raise DeployError(
                f"{exc.filename} cannot be used: {exc.strerror}; install the service first, or name --state-dir"
            ) from None
        if not os.access(state_dir / "models", os.W_OK):
            raise DeployError(f"{state_dir}/models cannot be written; use sudo")
        others = os.geteuid() == 0 and stat.st_uid != 0
        return cls(state_dir.absolute(), stat.st_uid, stat.st_gid) if others else cls(state_dir.absolute())

    @property
    def models(self) -> Path:
        """Where model files of its own lie, and the link to the one that is served."""
        return self.state_dir / "models"

    def environment(self) -> Mapping[str, str]:
        """What children get: this folder instead of the caller's own ones."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        own = {"SMOLTOOLS_EDGE_CACHE": str(self.state_dir), "HF_HOME": str(self.state_dir / "hub")}
        return kept | own | ({"HOME": str(self.state_dir)} if self.uid is not None else {})


def fetch(ref: str, place: Place, tell: Callable[[str], None]) -> Path:
    """The file for REF below the service's folder, looked over. Raises DeployError, and leaves no copy behind then."""
    reference = parse_reference(ref)
    if reference.path is None:
        return _pull(ref, place, tell)
    path, copied = _copy_in(reference.path.absolute(), place, tell)
    try:
        return _pull(str(path), place, tell)
    except DeployError:
        if copied:
            path.unlink()
        raise


def _pull(ref: str, place: Place, tell: Callable[[str], None]) -> Path:
    told = _child(["-m", "edge.cli", "pull", ref, "--json"], place, tell)
    try:
        path = Path(json.loads(told)["path"])
    except (ValueError, KeyError, TypeError):
        raise DeployError(f"the model was fetched, and where to is not understood: {told[:100]!r}") from None
    if not path.absolute().is_relative_to(place.state_dir):
        raise DeployError(f"{path} is outside {place.state_dir}, where the service cannot read it")
    return path


def _child(arguments: list[str], place: Place, tell: Callable[[str], None]) -> str:
    """Standard output of a Python child; its lines of progress are told, its error raised."""
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=dict(place.environment()), user=place.uid, group=place.gid, cwd=place.state_dir,
        extra_groups=[] if place.uid is not None else None,
    ) as child:  # fmt: skip
        assert child.stderr is not None
        assert child.stdout is not None
        last = ""
        for line in child.stderr:
            last = line.strip() or last
            if not line.startswith("error: "):
                tell(line.rstrip("\n"))
        told = child.stdout.read()
    if child.returncode != 0:
        raise DeployError(last.removeprefix("error: ") or f"exit code {child.returncode} without a reason")
    return told


def _copy_in(source: Path, place: Place, tell: Callable[[str], None]) -> tuple[Path, bool]:
    """A file below the models folder with this content, and whether it was made now."""
    if source.is_relative_to(place.state_dir):
        return source, False
    try:
        size, digest = source.stat().st_size, _digest(source)
    except OSError as exc:
        raise DeployError(f"{source} cannot be read: {exc.strerror}") from None
    target = place.models / source.name
    if (
        target.exists() and _digest(target) != digest
    ):  # another model of that name, perhaps the one that is served
        target = place.models / f"{source.stem}-{digest[:8]}.gguf"
    if target.exists():
        return target, False
    free = shutil.disk_usage(place.models).free
    if free < size + _SPARE_BYTES:
        raise DeployError(
            f"{place.models} has {free // _MIB:,} MiB free, {(size + _SPARE_BYTES) // _MIB:,} are needed; "
            "remove models with smoltools-edge rm"
        )
    tell(f"copying {source.name} to {target}")
    _copy(source, target, place)
    return target, True


def _copy(source: Path, target: Path, place: Place) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        with source.open("rb") as original, part.open("xb") as copy:
            if place.uid is not None and place.gid is not None:
                os.fchown(copy.fileno(), place.uid, place.gid)
            shutil.copyfileobj(original, copy, 1 << 22)
            copy.flush()
            os.fsync(copy.fileno())
        part.replace(target)
    except OSError as exc:
        raise DeployError(f"{target} cannot be written: {exc.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def try_out(path: Path, place: Place, tell: Callable[[str], None]) -> None:
    """Makes a first tool call in a child, if there is room beside what runs. Raises DeployError if none comes back."""
    free, needed = read_health().available_bytes, path.stat().st_size + _TRIAL_BYTES
    if free is not None and free < needed:
        tell(
            f"{free // _MIB:,} MiB are free and {needed // _MIB:,} would be needed to try it beside the running "
            "service: it is tried once it is switched to"
        )
        return
    tell("trying a tool call with it")
    try:
        _child(["-m", "edge.deploy.smoke", str(path)], place, lambda line: None)
    except DeployError as exc:
        raise DeployError(f"a first tool call with {path.name} failed: {exc}") from None


def limit_bytes(link: Path, place: Place, settings: Mapping[str, str]) -> int:
    """What the unit's MemoryMax should be: the plan for the model with the service's own options.

    To be asked while the service is stopped: what it holds is not free. Raises DeployError where nothing fits.
    """
    options = [
        f"--{name.lower().replace('_', '-')}={settings[name]}" for name in _PLANNED if settings.get(name)
    ]
    told = _child(
        ["-m", "edge.cli", "profile", "--model", str(link.resolve()), *options, "--json"],
        place,
        lambda line: None,
    )
    return int(json.loads(told)["plan"]["memory"]["memory_max_bytes"])
