"""`pull`, `models`, `rm`: the model files on this machine."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import REF_HELP, JsonOption
from edge.cli.progress import fetch_view, tell, warn
from edge.errors import ModelError

if TYPE_CHECKING:
    from edge.models.listing import ModelRow


def pull_command(
    ref: Annotated[str, typer.Argument(metavar="REF", help=REF_HELP)], json: JsonOption = False
) -> None:
    """Fetch a model onto this machine. Example: smoltools-edge pull demo"""
    from edge.models.listing import odd_about, row_of
    from edge.models.store import resolve

    with fetch_view() as view:
        resolved = resolve(ref, view.tell, on_bytes=view.on_bytes, refresh=True)
    try:
        row, warnings = row_of(resolved), odd_about(resolved)
    except ModelError as exc:
        hint = "" if resolved.path == Path(ref) else f"; remove it with: smoltools-edge rm {ref}"
        raise ModelError(f"{exc}{hint}") from exc
    warn(resolved.path, warnings)
    document = row.to_json() | {"warnings": list(warnings)}
    typer.echo(json_module.dumps(document, indent=2, ensure_ascii=False) if json else row.path)


def models_command(json: JsonOption = False) -> None:
    """List the known models and which are installed. Example: smoltools-edge models --json"""
    from edge.models.listing import list_models

    rows = list_models()
    if json:
        typer.echo(json_module.dumps([row.to_json() for row in rows], indent=2, ensure_ascii=False))
        return
    for row in rows:
        typer.echo(_line(row))


def _line(row: ModelRow) -> str:
    from edge.models.files import format_size

    size = format_size(row.size_bytes) if row.size_bytes else "-"
    state = "installed" if row.installed else "not here"
    return f"{row.ref:<24} {row.quantization or '-':<8} {size:>9}  {state:<9}  {row.description}".rstrip()


def rm_command(
    ref: Annotated[
        str,
        typer.Argument(metavar="REF", help="A name or user/repo; with :QUANT only that file. See `models`."),
    ],
) -> None:
    """Remove an installed model's files; asks nothing. Example: smoltools-edge rm demo"""
    from edge.models.files import format_size
    from edge.models.installed import remove

    removed = remove(ref)
    for path in removed.paths:
        tell(f"removed {path}")
    tell(f"{format_size(removed.freed_bytes)} freed")
