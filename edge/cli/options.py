"""Options that several commands share, word for word. What differs between commands stands with the command."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.models import REF_HELP

ModelOption = Annotated[str, typer.Option(metavar="REF", envvar="SMOLTOOLS_EDGE_MODEL", help=REF_HELP)]
NCtxOption = Annotated[
    int | None,
    typer.Option(
        "--n-ctx",
        metavar="N",
        envvar="SMOLTOOLS_EDGE_N_CTX",
        help="Context window in tokens. Default: what fits (see `profile`).",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(metavar="N", envvar="SMOLTOOLS_EDGE_THREADS", help="Default: the performance cores."),
]
KvTypeOption = Annotated[
    str | None, typer.Option(metavar="TYPE", help="KV cache: f32, f16 or q8_0. Default: what fits.")
]
GpuLayersOption = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Layers on the GPU. Default: as many as fit.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="llama.cpp's log on standard error.")]
