"""Options that several commands share, word for word. What differs between commands stands with the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

REF_HELP = (
    "A catalogue name (see `models`), user/repo[:QUANT] on the Hugging Face hub, or a path to a .gguf file."
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="llama.cpp's log on standard error.")]

# Which model, and how it is run.
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
    str | None,
    typer.Option(
        metavar="TYPE",
        envvar="SMOLTOOLS_EDGE_KV_TYPE",
        help="KV cache: f32, f16 or q8_0. Default: what fits.",
    ),
]
GpuLayersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        envvar="SMOLTOOLS_EDGE_GPU_LAYERS",
        min=0,
        help="Layers on the GPU. Default: as many as fit.",
    ),
]
DeviceProfileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="SMOLTOOLS_EDGE_DEVICE_PROFILE",
        help="TOML laid over the device's profile: headroom, preferences (docs/profiles.md).",
    ),
]
StateCacheOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        envvar="SMOLTOOLS_EDGE_STATE_CACHE",
        help="Keeps what was computed for system text and tools; off for none. Default: in the cache folder.",
    ),
]

# What is asked of it.
ThinkOption = Annotated[
    bool | None,
    typer.Option("--think/--no-think", help="Ask the template for thinking, where it knows how."),
]
CatalogArgument = Annotated[
    Path, typer.Argument(metavar="CATALOG", help='Tools: a JSON list, or lines of {"id", "tool"}.')
]
EmbedModelOption = Annotated[
    str | None,
    typer.Option(metavar="REF", help="A GGUF embedding model; search then goes by meaning too."),
]
OpenWorldProfileOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Its tags, prompts, limits: toolomni, calls, or a TOML file. Default: what suits the model.",
    ),
]
