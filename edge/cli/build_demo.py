"""Builds the demo model: the published base back to a checkpoint, the adapter merged, GGUF files made and checked.

`edge.models.build` calls this by the name in the catalogue; here the converter is joined to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.convert import ConversionError, stage_lines, translated_errors
from edge.errors import CatalogueError

if TYPE_CHECKING:
    from edge.models.build import BuildJob, Tell


def build_demo(job: BuildJob, tell: Tell) -> None:
    """Writes the job's files. Raises CatalogueError: a damaged base or adapter, or a file that failed a check."""
    try:
        with translated_errors():
            _build(job, tell)
    except ConversionError as exc:
        raise CatalogueError(f"{job.name} could not be built: {exc}") from exc


def _build(job: BuildJob, tell: Tell) -> None:
    from convert import ConvertOptions, convert
    from convert.dequantize import write_checkpoint
    from convert.gguf_file import read_gguf

    tell("writing the base as a checkpoint")
    template = job.chat_template.read_text(encoding="utf-8")
    checkpoint = write_checkpoint(job.base, job.scratch / job.base_name, chat_template=template)
    _write_card(checkpoint, job.license)
    options = ConvertOptions(
        checkpoint=str(checkpoint),
        out=job.out,
        adapters=(job.adapter,),
        types=tuple(quantization.lower() for quantization in job.quantizations),
        name=job.name,
        pre=str(read_gguf(job.base).metadata.get("tokenizer.ggml.pre")),
    )
    convert(options, stage_lines(tell, _spoken))


def _write_card(checkpoint: Path, license_: str) -> None:
    """What the files will say of their licence."""
    (checkpoint / "README.md").write_text(f"---\nlicense: {license_.lower()}\n---\n", encoding="utf-8")


def _spoken(stage: str) -> str:
    """A stage of the converter in words, as `quantize q8_0` is."""
    words = {"write": "merging the adapter and writing", "quantize": "quantizing to", "verify": "checking"}
    verb, _, type_ = stage.partition(" ")
    return f"{words.get(verb, verb)} {type_.upper()}"
