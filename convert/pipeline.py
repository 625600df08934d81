"""The straight line: checkpoint and adapters in, checked GGUF files and a manifest out.

    open -> plan -> refuse -> write the float files -> quantize -> verify -> rename into place

Nothing here prints; progress goes to a callback.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from convert.checkpoint import Checkpoint, one_line, open_checkpoint
from convert.checks import Check
from convert.child import NativeFailure, run_native
from convert.errors import OutputError, QuantizeError, VerifyError
from convert.filetypes import DEFAULT_TYPES, FileType, known_types, parse_types
from convert.floats import Array, FloatType
from convert.gguf_file import GgufFile, read_gguf
from convert.gguf_write import TensorEntry, padded_bytes, write_gguf
from convert.hub import fetch_checkpoint
from convert.imatrix import Imatrix, check_imatrix, read_imatrix
from convert.lora import open_adapter
from convert.manifest import Output, file_sha256, write_manifest
from convert.model import ModelPlan, plan_model
from convert.plan import Field
from convert.probes import PROBE_TEXTS
from convert.provenance import Provenance, general_fields, quantized_fields, read_provenance
from convert.reference import distance, file_logits, probe_prompts, require_packages, transformers_logits
from convert.tokenizer import Vocabulary, read_chat_template, read_vocabulary
from convert.verify import fallbacks, type_counts, verify_float, verify_quantized
from convert.weights import written_blocks

VerifyLevel = Literal["off", "basic", "full"]

# Rows are quantized in pieces of this size; the default of 8 GiB costs 3 GB of memory more for a 4B and is slower.
_MAX_BUF_BYTES = 256 * 2**20
# Beside weights a file holds a vocabulary: 248k tokens and merges take 11 MB.
_HEAD_BYTES = 32 * 2**20
_SOURCE_TYPE = "bf16"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a stage: 'download', 'write bf16', 'quantize q8_0', 'verify q8_0'. Units are the stage's own."""

    stage: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


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
class ConvertResult:
    """The files in place, what was checked of each, and what the user should know."""

    files: tuple[Output, ...]
    manifest: Path
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Job:
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


def convert(options: ConvertOptions, on_progress: OnProgress = lambda progress: None) -> ConvertResult:
    """Convert, verify and put in place. Raises ConvertError and then leaves no finished-looking file behind."""
    job = _prepare(options, on_progress)
    _refuse_outputs(job)
    parts = [job.partial(file_type) for file_type in _made_types(job)]
    try:
        outputs = [_make(job, file_type, on_progress) for file_type in _made_types(job)]
        if options.verify == "full":
            outputs = _with_logits(job, outputs, on_progress)
        wanted = [output for output in outputs if output.type in {file_type.name for file_type in job.types}]
        for output in wanted:
            job.partial(known_types()[output.type]).replace(output.path)
    except OSError as error:
        raise OutputError(f"{options.out} cannot be written: {error}") from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    manifest = write_manifest(options.out / f"{job.name}.json", wanted, job.provenance, job.plan.notes)
    return ConvertResult(files=tuple(wanted), manifest=manifest, notes=job.plan.notes)


def _prepare(options: ConvertOptions, on_progress: OnProgress) -> _Job:
    types = parse_types(options.types)
    if options.verify == "full":
        require_packages(with_adapters=bool(options.adapters))
    adapters = [open_adapter(folder) for folder in options.adapters]
    located = fetch_checkpoint(options.checkpoint, revision=options.revision)
    checkpoint = open_checkpoint(located.folder)
    plan = plan_model(checkpoint, adapters)
    name = options.name or located.source.rpartition("/")[2]
    imatrix = read_imatrix(options.imatrix) if options.imatrix else None
    if imatrix:
        check_imatrix(imatrix, {tensor.name: tensor.shape[-1] for tensor in plan.tensors})
    return _Job(
        options=options,
        name=name,
        checkpoint=checkpoint,
        plan=plan,
        vocabulary=read_vocabulary(located.folder, plan.config.n_vocab, pre=options.pre),
        chat_template=options.chat_template_text or read_chat_template(located.folder, options.chat_template),
        imatrix=imatrix,
        provenance=read_provenance(
            located.source,
            located.revision,
            checkpoint,
            adapters,
            name=name,
            trained_context=options.trained_context,
        ),
        types=types,
    )


def _made_types(job: _Job) -> list[FileType]:
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


def _refuse_outputs(job: _Job) -> None:
    """Raise OutputError if a target exists (without force), the folder cannot be written or the disk is too full."""
    out = job.options.out
    taken = [job.target(file_type) for file_type in job.types if job.target(file_type).exists()]
    if taken and not job.options.force:
        raise OutputError(f"{taken[0]} exists; use --force to replace it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise OutputError(f"{out} cannot be used as the output folder: {one_line(error)}") from error
    needed = sum(_estimated_bytes(job, file_type) for file_type in _made_types(job))
    if needed > free:
        raise OutputError(f"{out} has {free / 1e9:.1f} GB free, the files need {needed / 1e9:.1f} GB")


def _estimated_bytes(job: _Job, file_type: FileType) -> int:
    """Size of one file; for quantized types an upper bound by their bits per weight in the worst recipe."""
    if file_type.float_type:
        return padded_bytes(job.entries(file_type.float_type)) + _HEAD_BYTES
    share = 0.54 if file_type.name == "q8_0" else 0.45
    return int(share * padded_bytes(job.entries("BF16"))) + _HEAD_BYTES


def _make(job: _Job, file_type: FileType, on_progress: OnProgress) -> Output:
    """Write and verify one file under its partial name."""
    if file_type.float_type:
        _write_float(job, file_type, file_type.float_type, on_progress)
    else:
        _quantize(job, file_type, on_progress)
    path = job.partial(file_type)
    file = read_gguf(path)
    on_progress(Progress(f"verify {file_type.name}", 0, 1))
    checks = _verify(job, file_type, file)
    output = Output(
        type=file_type.name,
        path=job.target(file_type),
        size_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        tensor_types=type_counts(file),
        fallbacks=() if file_type.float_type else fallbacks(file, read_gguf(job.source()), file_type.name),
        checks=checks,
    )
    on_progress(Progress(f"verify {file_type.name}", 1, 1))
    return output


def _write_float(job: _Job, file_type: FileType, kind: FloatType, on_progress: OnProgress) -> None:
    stage, total = f"write {file_type.name}", sum(tensor.n_elements for tensor in job.plan.tensors)
    done = 0

    def blocks(i: int) -> Iterable[Array]:
        nonlocal done
        plan = job.plan.tensors[i]
        for block in written_blocks(plan, job.plan.source_of(plan), plan.stored_as(kind)):
            yield block
            done += block.size
            on_progress(Progress(stage, done, total))

    write_gguf(
        job.partial(file_type),
        arch=job.plan.architecture.name,
        fields=job.fields(file_type),
        tensors=job.entries(kind),
        blocks=blocks,
    )


def _quantize(job: _Job, file_type: FileType, on_progress: OnProgress) -> None:
    stage = f"quantize {file_type.name}"
    with tempfile.TemporaryDirectory() as folder:
        imatrix = Path(folder) / "imatrix.npz"
        if job.imatrix:
            np.savez(imatrix, allow_pickle=False, **job.imatrix.values)
        request = {
            "source": str(job.source()),
            "target": str(job.partial(file_type)),
            "ftype": file_type.ftype,
            "n_threads": job.options.n_threads,
            "max_buf_bytes": _MAX_BUF_BYTES,
            "fields": job.quantized_fields(file_type),
            "imatrix": str(imatrix) if job.imatrix else None,
        }
        try:
            run_native("quantize", request, lambda done, total: on_progress(Progress(stage, done, total)))
        except NativeFailure as error:
            raise QuantizeError(f"{file_type.name}: {error}") from error


def _verify(job: _Job, file_type: FileType, file: GgufFile) -> tuple[Check, ...]:
    if job.options.verify == "off":
        return ()
    if file_type.float_type:
        return verify_float(file, job.plan, job.vocabulary, job.fields(file_type), file_type.float_type)
    changed = job.quantized_fields(file_type)
    fields = [field for field in job.fields(file_type) if field.key not in changed]
    fields += [Field(key, "str", value) for key, value in changed.items()]
    return verify_quantized(file, read_gguf(job.source()), job.vocabulary, fields)


def _with_logits(job: _Job, outputs: list[Output], on_progress: OnProgress) -> list[Output]:
    """The outputs with one check more: logits against transformers. Raises VerifyError if F32 is not float noise."""
    options, stage = job.options, "compare logits"
    prompts = probe_prompts(job.vocabulary.path, PROBE_TEXTS)
    on_progress(Progress(stage, 0, len(outputs) + 1))
    reference = transformers_logits(job.checkpoint.folder, options.adapters, prompts)
    compared = []
    for i, output in enumerate(outputs):
        on_progress(Progress(stage, i + 1, len(outputs) + 1))
        partial = job.partial(known_types()[output.type])
        found = distance(reference, file_logits(partial, prompts, n_threads=options.n_threads))
        if output.type == "f32" and not found.is_float32_noise:
            raise VerifyError(output.path.name, "logits", str(found))
        compared.append(replace(output, checks=(*output.checks, Check("logits", str(found)))))
    on_progress(Progress(stage, len(outputs) + 1, len(outputs) + 1))
    return compared
