"""`pull`, `models`, `rm`: the model files on this machine."""

from __future__ import annotations

import json as json_module
import sys
from typing import Annotated

import typer

REF_HELP = (
    "A catalogue name (see `models`), user/repo[:QUANT] on the Hugging Face hub, or a path to a .gguf file."
)


def tell(line: str) -> None:
    """A line of progress, where data does not go."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def pull_command(ref: Annotated[str, typer.Argument(metavar="REF", help=REF_HELP)]) -> None:
    """Fetch a model onto this machine. Example: smoltools-edge pull demo"""
    from edge.models.store import resolve

    resolved = resolve(ref, tell)
    if not resolved.path.exists():
        from edge.errors import ModelError

        raise ModelError(f"there is no file {resolved.path}")
    typer.echo(str(resolved.path))


def models_command(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the known models and which are installed. Example: smoltools-edge models --json"""
    rows = _rows()
    if json:
        typer.echo(json_module.dumps(rows, indent=2))
        return
    for row in rows:
        size = f"{row['size_bytes'] / 1e6:,.0f} MB" if isinstance(row["size_bytes"], int) else "not installed"
        typer.echo(f"{row['name']:<20} {row['quantization'] or '-':<8} {size:>14}  {row['description']}")


def rm_command(
    ref: Annotated[str, typer.Argument(metavar="NAME", help="A catalogue name, see `models`.")],
) -> None:
    """Remove an installed model's files. Example: smoltools-edge rm demo"""
    from edge.models.store import remove

    tell(f"removed {remove(ref)}")


def _rows() -> list[dict[str, object]]:
    from edge.engine.gguf_header import read_gguf_header
    from edge.engine.model import model_facts
    from edge.models.catalogue import catalogue
    from edge.models.store import find_installed, parse_reference

    rows = []
    for entry in catalogue().values():
        path = find_installed(parse_reference(entry.name))
        facts = model_facts(read_gguf_header(path)) if path else {}
        rows.append(
            {
                "name": entry.name,
                "ref": entry.name,
                "installed": path is not None,
                "path": str(path) if path else None,
                "quantization": facts.get("quantization"),
                "size_bytes": facts.get("size_bytes"),
                "n_ctx_train": facts.get("n_ctx_train"),
                "n_ctx_tuned": entry.n_ctx_tuned,
                "architecture": entry.architecture,
                "description": entry.description,
                "license": entry.license,
            }
        )
    return rows
