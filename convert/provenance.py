"""Where a file comes from, as GGUF metadata: source, revision, adapters, licence, trained context, tool version."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from convert.checkpoint import Checkpoint
from convert.filetypes import FileType
from convert.lora import Adapter
from convert.plan import Field

PREFIX = "smoltools_edge"
_QUANTIZATION_VERSION = 2  # GGML_QUANT_VERSION

# What the smol-tools family was trained on; the configuration says 262,144, the base model's value.
_TRAINED_CONTEXTS = {
    r"smol-tools-4b-32k": 32768,
    r"smol-tools-4b-16k": 16384,
    r"smol-tools-4b": 4096,
}


@dataclass(frozen=True, slots=True)
class Provenance:
    """source: the repository or the folder's name. adapters: (name, sha256) in merge order."""

    source: str
    revision: str | None
    base_models: tuple[str, ...]
    adapters: tuple[tuple[str, str], ...]
    license: str | None
    trained_context: int | None
    tool_version: str


def read_provenance(
    source: str,
    revision: str | None,
    checkpoint: Checkpoint,
    adapters: Sequence[Adapter],
    *,
    name: str,
    trained_context: int | None = None,
) -> Provenance:
    """What the checkpoint, its model card and its adapters say of themselves."""
    card = _card(checkpoint.folder / "README.md")
    bases = [adapter.base_model for adapter in adapters if adapter.base_model]
    bases += card.get("base_model", [])
    return Provenance(
        source=source,
        revision=revision,
        base_models=tuple(dict.fromkeys(bases)),
        adapters=tuple((adapter.name, adapter.sha256) for adapter in adapters),
        license=next(iter(card.get("license", [])), None),
        trained_context=trained_context or _trained_context(f"{source} {name}"),
        tool_version=_tool_version(),
    )


def general_fields(name: str, file_type: FileType, provenance: Provenance) -> list[Field]:
    """GGUF's own keys for origin, then ours."""
    fields = [
        Field("general.type", "str", "model"),
        Field("general.name", "str", name),
        Field("general.file_type", "u32", file_type.ftype),
        Field("general.quantization_version", "u32", _QUANTIZATION_VERSION),
    ]
    if provenance.license:
        fields.append(Field("general.license", "str", provenance.license))
    if provenance.base_models:
        fields.append(Field("general.base_model.count", "u32", len(provenance.base_models)))
    for i, base in enumerate(provenance.base_models):
        fields.append(Field(f"general.base_model.{i}.name", "str", base.rpartition("/")[2]))
        if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
            fields.append(Field(f"general.base_model.{i}.repo_url", "str", f"https://huggingface.co/{base}"))
    return [*fields, *_own_fields(provenance, file_type)]


def _own_fields(provenance: Provenance, file_type: FileType) -> list[Field]:
    fields = [
        Field(f"{PREFIX}.tool_version", "str", provenance.tool_version),
        Field(f"{PREFIX}.source", "str", provenance.source),
        Field(f"{PREFIX}.quantization.recipe", "str", f"{file_type.name} from the checkpoint"),
    ]
    if provenance.revision:
        fields.append(Field(f"{PREFIX}.source.revision", "str", provenance.revision))
    if provenance.trained_context:
        fields.append(Field(f"{PREFIX}.trained_context", "u32", provenance.trained_context))
    if provenance.adapters:
        fields.append(Field(f"{PREFIX}.adapter.count", "u32", len(provenance.adapters)))
    for i, (name, sha256) in enumerate(provenance.adapters):
        fields.append(Field(f"{PREFIX}.adapter.{i}.name", "str", name))
        fields.append(Field(f"{PREFIX}.adapter.{i}.sha256", "str", sha256))
    return fields


def quantized_fields(file_type: FileType, imatrix_sha256: str | None) -> dict[str, str]:
    """What quantizing adds or replaces."""
    recipe = f"{file_type.name} by llama_model_quantize from bf16"
    fields = {f"{PREFIX}.quantization.recipe": recipe + (" with imatrix" if imatrix_sha256 else "")}
    if imatrix_sha256:
        fields[f"{PREFIX}.imatrix.sha256"] = imatrix_sha256
    return fields


def _trained_context(names: str) -> int | None:
    return next((size for pattern, size in _TRAINED_CONTEXTS.items() if re.search(pattern, names)), None)


def _card(path: Path) -> dict[str, list[str]]:
    """license and base_model of a model card's front matter; values that are no plain list of words are left out."""
    if not path.is_file():
        return {}
    front = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.S)
    found: dict[str, list[str]] = {}
    key = ""
    for line in front[1].splitlines() if front else []:
        if match := re.match(r"(license|base_model):\s*(.*)$", line):
            key = match[1]
            found[key] = [match[2].strip(" '\"")] if match[2].strip() else []
        elif key and (match := re.match(r"\s*-\s+(\S+)\s*$", line)):
            found[key].append(match[1].strip("'\""))
        else:
            key = ""
    return found


def _tool_version() -> str:
    try:
        return version("smoltools-edge")
    except PackageNotFoundError:
        return "unknown"
