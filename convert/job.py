"""A conversion decided: what is read, what is written and where, or why not. No weight has been read yet."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from convert.checkpoint import Checkpoint, one_line, open_checkpoint
from convert.errors import OutputError, QuantizeError
from convert.filetypes import DEFAULT_TYPES, FileType, known_types, parse_types
from convert.floats import FloatType
from convert.gguf_write import TensorEntry, padded_bytes
from convert.hub import fetch_checkpoint, repository_name
from convert.imatrix import Imatrix, check_imatrix, read_imatrix
from convert.lora import open_adapter
from convert.model import ModelPlan, plan_model
from convert.plan import Field
from convert.provenance import Provenance, general_fields, quantized_fields, read_provenance
from convert.reference import require_packages
from convert.tokenizer import Vocabulary, read_chat_template, read_vocabulary

VerifyLevel = Literal["off", "basic", "full"]

# Beside weights a file holds a vocabulary: 248k tokens and merges take 11 MB.
_HEAD_BYTES = 32 * 2**20
_SOURCE_TYPE = "bf16"


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What to convert and how. Defaults are those of the command."""

    checkpoint: str
    out: Path
    adapters: tuple[Path, ...] = ()
    types: tuple[str, ...] = DEFAULT_TYPES
    name: str | None = None
    revision: str | None = None
    imatrix: Path | None = None
    chat_template: Path | None = None
    chat_template_text: str | None = None
    pre: str | None = None
    trained_context: int | None = None
    verify: VerifyLevel = "basic"
    force: bool = False
    n_threads: int = field(default_factory=lambda: os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Job:
    """Everything decided before the first byte is written."""

    options: ConvertOptions
    name: str
    checkpoint: Checkpoint
    plan: ModelPlan
    vocabulary: Vocabulary
    chat_template: str | None
    imatrix: Imatrix | None
    provenance: Provenance
    types: tuple[FileType, ...]

    def target(self, file_type: FileType) -> Path:
        return self.options.out / f"{self.name}-{file_type.name}.gguf"

    def partial(self, file_type: FileType) -> Path:
        """Where the file grows; the name ends in .part, so that nothing takes it for a model."""
        return self.options.out / f".{self.name}-{file_type.name}.gguf.part"

    def source(self) -> Path:
        """The BF16 file that quantized files are made from."""
        return self.partial(known_types()[_SOURCE_TYPE])

    def quantized_fields(self, file_type: FileType) -> dict[str, str]:
        return quantized_fields(file_type, self.imatrix.sha256 if self.imatrix else None)

    def entries(self, kind: FloatType) -> list[TensorEntry]:
        """The tensors of a float file."""
        return [TensorEntry(plan.name, plan.shape, plan.stored_as(kind)) for plan in self.plan.tensors]

    def fields(self, file_type: FileType) -> list[Field]:
        template = self.chat_template
        return [
            *general_fields(self.name, file_type, self.provenance),
            *self.plan.fields,
            *self.vocabulary.fields(),
            *([Field("tokenizer.chat_template", "str", template)] if template else []),
        ]


def prepare(options: ConvertOptions) -> Job:
    """Everything decided, cheapest refusals first; a repository is downloaded here. Raises ConvertError."""
    types = parse_types(options.types)
    name = options.name or repository_name(options.checkpoint)
    _refuse_before_reading(options, name, types)
    adapters = [open_adapter(folder) for folder in options.adapters]
    imatrix = read_imatrix(options.imatrix) if options.imatrix else None
    located = fetch_checkpoint(options.checkpoint, revision=options.revision)
    checkpoint = open_checkpoint(located.folder)
    plan = plan_model(checkpoint, adapters)
    if imatrix:
        check_imatrix(imatrix, {tensor.name: tensor.shape[-1] for tensor in plan.tensors})
    provenance = read_provenance(
        located.source,
        located.revision,
        checkpoint,
        adapters,
        name=name,
        trained_context=options.trained_context,
    )
    job = Job(
        options=options,
        name=name,
        checkpoint=checkpoint,
        plan=plan,
        vocabulary=read_vocabulary(located.folder, plan.config.n_vocab, pre=options.pre),
        chat_template=options.chat_template_text or read_chat_template(located.folder, options.chat_template),
        imatrix=imatrix,
        provenance=provenance,
        types=types,
    )
    _refuse_full_disk(job)
    return job


def _refuse_before_reading(options: ConvertOptions, name: str, types: tuple[FileType, ...]) -> None:
    if options.verify == "full":
        require_packages(with_adapters=bool(options.adapters))
    if not name or "/" in name or name.startswith("."):
        raise OutputError(f"{name!r} cannot begin a file name; give another with --name")
    blind = [file_type.name for file_type in types if file_type.needs_imatrix]
    if blind and not options.imatrix:
        raise QuantizeError(f"{blind[0]} is too coarse without an importance matrix; give one with --imatrix")
    taken = [path for path in (options.out / f"{name}-{t.name}.gguf" for t in types) if path.exists()]
    if taken and not options.force:
        raise OutputError(f"{taken[0]} exists; use --force to replace it")


def made_types(job: Job) -> list[FileType]:
    """Float types first, then quantized ones.

    BF16 is made as their source, and F32 for the comparison of logits, even if they were not asked for.
    """
    floats = [file_type for file_type in job.types if file_type.float_type]
    quantized = [file_type for file_type in job.types if not file_type.float_type]
    needed = [known_types()[_SOURCE_TYPE]] if quantized else []
    if job.options.verify == "full":
        needed.append(known_types()["f32"])
    floats += [file_type for file_type in needed if file_type not in floats]
    return [*floats, *quantized]


def _refuse_full_disk(job: Job) -> None:
    """Make the output folder. Raises OutputError if that fails, or if the files do not fit the disk."""
    out = job.options.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise OutputError(f"{out} cannot be used as the output folder: {one_line(error)}") from error
    needed = sum(_estimated_bytes(job, file_type) for file_type in made_types(job))
    if needed > free:
        raise OutputError(f"{out} has {free / 1e9:.1f} GB free, the files need {needed / 1e9:.1f} GB")


def _estimated_bytes(job: Job, file_type: FileType) -> int:
    """Size of one file; for quantized types an upper bound by their bits per weight in the worst recipe."""
    if file_type.float_type:
        return padded_bytes(job.entries(file_type.float_type)) + _HEAD_BYTES
    share = 0.54 if file_type.name == "q8_0" else 0.45
    return int(share * padded_bytes(job.entries("BF16"))) + _HEAD_BYTES
