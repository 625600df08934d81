"""The rows that `models` and `pull --json` show: what is known and what is installed, one row a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from edge.engine.intake import examine
from edge.errors import ModelError
from edge.models.catalogue import BuiltSource, ModelEntry, catalogue
from edge.models.installed import InstalledFile, all_installed
from edge.models.store import ResolvedModel


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model file that is here, or could be fetched: then path is None and the size what is expected."""

    name: str
    ref: str
    installed: bool
    path: str | None
    quantization: str | None
    size_bytes: int | None
    n_ctx_train: int | None
    description: str = ""

    def to_json(self) -> dict[str, object]:
        """The seven fields that scripts rely on."""
        document = asdict(self)
        del document["description"]
        return document


def list_models() -> list[ModelRow]:
    """The catalogue's models in its order, then what else is installed. Several rows for several quantizations."""
    installed: dict[str, list[InstalledFile]] = {}
    for there in all_installed():
        installed.setdefault(there.name, []).append(there)
    rows = []
    for entry in catalogue().values():
        files = installed.pop(entry.name, [])
        rows += [_row(there, entry) for there in _best_first(files, entry)] or [_not_installed(entry)]
    return rows + [_row(there, None) for files in installed.values() for there in files]


def _best_first(files: list[InstalledFile], entry: ModelEntry) -> list[InstalledFile]:
    rank = {quantization: i for i, quantization in enumerate(entry.quantizations)}
    return sorted(files, key=lambda there: rank.get(there.file.quantization or "", len(rank)))


def _row(there: InstalledFile, entry: ModelEntry | None) -> ModelRow:
    is_only_choice = entry is not None and there.file.quantization == entry.quantizations[0]
    ref = there.name if is_only_choice else there.ref
    return _of_file(there.name, ref, there.path, entry, there.file.quantization)


def _of_file(
    name: str, ref: str, path: Path, entry: ModelEntry | None, quantization: str | None = None
) -> ModelRow:
    size, n_ctx, description = path.stat().st_size, None, entry.description if entry else ""
    try:
        facts = examine(path).facts
        quantization = str(facts["quantization"])
        n_ctx = facts["n_ctx_train"] if isinstance(facts["n_ctx_train"], int) else None
    except ModelError:
        description = "cannot be run: remove it and pull it again"
    return ModelRow(name, ref, True, str(path), quantization, size, n_ctx, description)


def _not_installed(entry: ModelEntry) -> ModelRow:
    quantization = entry.quantizations[0]
    size = entry.shape.file_bytes[quantization]
    origin = "built here" if isinstance(entry.sources[0], BuiltSource) else "from the hub"
    description = f"{entry.description} ({origin})"
    return ModelRow(
        entry.name, entry.name, False, None, quantization, size, entry.shape.n_ctx_train, description
    )


def row_of(resolved: ResolvedModel) -> ModelRow:
    """The row of a file that was just resolved. Raises ModelError when it cannot be run."""
    examine(resolved.path)
    for there in all_installed():
        if there.path == resolved.path:
            return _row(there, resolved.entry)
    return _of_file(resolved.path.stem, str(resolved.path), resolved.path, resolved.entry)


def odd_about(resolved: ResolvedModel) -> tuple[str, ...]:
    """What is odd about a file, a sentence each; about its template only if the catalogue has no other for it."""
    intake = examine(resolved.path)
    is_replaced = resolved.entry is not None and resolved.entry.chat_template is not None
    template = () if is_replaced or intake.template_warning is None else (intake.template_warning,)
    return (*intake.warnings, *template)
