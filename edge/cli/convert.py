"""`convert`: a checkpoint and its LoRA adapters to GGUF files, each checked."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.cli.options import JsonOption
from edge.cli.progress import tell
from edge.errors import EdgeError

if TYPE_CHECKING:
    from convert import ConvertResult, Progress

VerifyLevel = Literal["off", "basic", "full"]


class ConversionError(EdgeError):
    """A ConvertError as this program's own: one line, exit code 1."""


def convert_command(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Folder of a checkpoint, or user/repo on the hub.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the files to write.")],
    adapter: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="PEFT LoRA adapter to merge; may be repeated.")
    ] = None,
    type_: Annotated[
        list[str] | None,
        typer.Option(
            "--type", metavar="TYPE", help="File type; may be repeated. Default: bf16, q8_0, q4_k_m."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Files are NAME-TYPE.gguf. Default: the checkpoint's name."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit of the hub repository.")
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Importance matrix for quantizing (see `imatrix`).")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Chat template to store instead of the checkpoint's.")
    ] = None,
    pre: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="llama.cpp's pre-tokenizer, for a vocabulary that is not recognised."
        ),
    ] = None,
    trained_context: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Context the fine-tuning saw, stored in the files.")
    ] = None,
    verify: Annotated[
        VerifyLevel, typer.Option(help="Checks of each file; full compares logits with transformers.")
    ] = "basic",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads for quantizing. Default: all cores.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    json: JsonOption = False,
) -> None:
    """Convert a checkpoint to GGUF, with proof. Example: smoltools-edge convert ./model --adapter ./lora --out gguf"""
    with translated_errors():
        from convert import ConvertOptions, convert
        from convert.filetypes import DEFAULT_TYPES

        known = _known_model(name or checkpoint.rstrip("/").rpartition("/")[2])
        options = ConvertOptions(
            checkpoint=checkpoint,
            out=out,
            adapters=tuple(adapter or ()),
            types=tuple(type_ or DEFAULT_TYPES),
            name=name,
            revision=revision,
            imatrix=imatrix,
            chat_template=chat_template,
            chat_template_text=None if chat_template else known[0],
            pre=pre,
            trained_context=trained_context or known[1],
            verify=verify,
            force=force,
            **({"n_threads": threads} if threads else {}),
        )
        with drawn_progress() as on_progress:
            result = convert(options, on_progress)
    if json:
        typer.echo(json_module.dumps(_document(result), indent=2))
    else:
        _print_table(result)


def _known_model(name: str) -> tuple[str | None, int | None]:
    """The catalogue's chat template and trained context for a model that it knows by this name."""
    from edge.chat.template import hermes_template
    from edge.models.catalogue import catalogue

    entry = catalogue().get(name.lower())
    if entry is None:
        return None, None
    template = hermes_template(entry.default_system).source if entry.chat_template == "hermes" else None
    if template:
        tell(f"note: {entry.name} is a known model; its chat template is the catalogue's")
    return template, entry.n_ctx_tuned


@contextmanager
def translated_errors() -> Iterator[None]:
    """ConvertError as an error of this program."""
    from convert.errors import ConvertError

    try:
        yield
    except ConvertError as exc:
        raise ConversionError(str(exc)) from exc


@contextmanager
def drawn_progress() -> Iterator[Callable[[Progress], None]]:
    """A bar for each stage on a terminal; elsewhere one line a stage. Standard error in both cases."""
    if not sys.stderr.isatty():
        yield stage_lines(tell)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description:<18}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, object] = {}

        def draw(step: Progress) -> None:
            if step.stage not in tasks:
                tasks[step.stage] = bars.add_task(step.stage, total=step.total)
            bars.update(tasks[step.stage], completed=step.done, total=step.total)  # type: ignore[arg-type]

        yield draw


def stage_lines(
    tell: Callable[[str], None], spoken: Callable[[str], str] = str
) -> Callable[[Progress], None]:
    """Tells each stage once, as it begins. spoken: its name to what is told."""
    seen: set[str] = set()

    def draw(step: Progress) -> None:
        if step.stage not in seen:
            seen.add(step.stage)
            tell(spoken(step.stage))

    return draw


def _document(result: ConvertResult) -> dict[str, object]:
    return {
        "files": [file.as_json() for file in result.files],
        "manifest": str(result.manifest),
        "notes": list(result.notes),
    }


def _print_table(result: ConvertResult) -> None:
    for note in result.notes:
        tell(f"note: {note}")
    for file in result.files:
        typer.echo(f"{file.path}  {file.size_bytes / 1e6:,.1f} MB")
        for check in file.checks:
            typer.echo(f"  ok  {check.name:<14}{check.detail}")
        if file.fallbacks:
            shown = ", ".join(file.fallbacks[:3])
            typer.echo(
                f"  note  {len(file.fallbacks)} tensors with a fallback type (rows not a multiple): {shown}"
            )
    typer.echo(f"{result.manifest}")
