"""The straight line: checkpoint and adapters in, checked GGUF files and a manifest out.

    open -> plan -> refuse -> write the float files -> quantize -> verify -> rename into place

Nothing here prints; progress goes to a callback.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convert.checks import Check
from convert.child import NativeFailure, run_native
from convert.errors import OutputError, QuantizeError, VerifyError
from convert.filetypes import FileType, known_types
from convert.floats import Array, FloatType
from convert.gguf_file import GgufFile, read_gguf
from convert.gguf_write import write_gguf
from convert.job import ConvertOptions, Job, made_types, prepare
from convert.manifest import Output, file_sha256, write_manifest
from convert.plan import Field
from convert.probes import PROBE_TEXTS
from convert.provenance import PREFIX
from convert.reference import distance, file_logits, probe_prompts, transformers_logits
from convert.verify import fallbacks, type_counts, verify_float, verify_quantized
from convert.weights import written_blocks

# Rows are quantized in pieces of this size; the default of 8 GiB costs 3 GB of memory more for a 4B and is slower.
_MAX_BUF_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a stage: 'download', 'write bf16', 'quantize q8_0', 'verify q8_0'. Units are the stage's own."""

    stage: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """The files in place, what was checked of each, and what the user should know."""

    files: tuple[Output, ...]
    manifest: Path
    notes: tuple[str, ...]


def convert(options: ConvertOptions, on_progress: OnProgress = lambda progress: None) -> ConvertResult:
    """Convert, verify and put in place. Raises ConvertError and then leaves no finished-looking file behind."""
    job = prepare(options)
    with _alone_in(options.out), _partial_files(job):
        outputs = [_make(job, file_type, on_progress) for file_type in made_types(job)]
        if options.verify == "full":
            outputs = _with_logits(job, outputs, on_progress)
        asked = {file_type.name for file_type in job.types}
        wanted = [output for output in outputs if output.type in asked]
        for output in wanted:
            job.partial(known_types()[output.type]).replace(output.path)
        manifest = write_manifest(options.out / f"{job.name}.json", wanted, job.provenance, job.plan.notes)
    return ConvertResult(files=tuple(wanted), manifest=manifest, notes=job.plan.notes)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder: two runs that write the same partial file would spoil both."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another conversion is writing into {folder}") from error
        yield
    finally:
        os.close(handle)


@contextmanager
def _partial_files(job: Job) -> Iterator[None]:
    """Remove what is unfinished when the work ends, however it ends; name the folder if it cannot be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{job.options.out} cannot be written: {error.strerror or error}") from error
    finally:
        for file_type in made_types(job):
            job.partial(file_type).unlink(missing_ok=True)


def _make(job: Job, file_type: FileType, on_progress: OnProgress) -> Output:
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
        recipe=str(file.metadata[f"{PREFIX}.quantization.recipe"]),
        imatrix_sha256=job.imatrix.sha256 if job.imatrix and not file_type.float_type else None,
        tensor_types=type_counts(file),
        fallbacks=() if file_type.float_type else fallbacks(file, read_gguf(job.source()), file_type.name),
        checks=checks,
    )
    on_progress(Progress(f"verify {file_type.name}", 1, 1))
    return output


def _write_float(job: Job, file_type: FileType, kind: FloatType, on_progress: OnProgress) -> None:
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


def _quantize(job: Job, file_type: FileType, on_progress: OnProgress) -> None:
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


def _verify(job: Job, file_type: FileType, file: GgufFile) -> tuple[Check, ...]:
    if job.options.verify == "off":
        return ()
    if file_type.float_type:
        return verify_float(file, job.plan, job.vocabulary, job.fields(file_type), file_type.float_type)
    changed = job.quantized_fields(file_type)
    fields = [field for field in job.fields(file_type) if field.key not in changed]
    fields += [Field(key, "str", value) for key, value in changed.items()]
    return verify_quantized(file, read_gguf(job.source()), job.vocabulary, fields)


def _with_logits(job: Job, outputs: list[Output], on_progress: OnProgress) -> list[Output]:
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
