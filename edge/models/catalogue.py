"""The known models, read from `catalogue.toml`. What is known before there is a file; no file is looked at here."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RepoName = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WheelFile(_Row):
    """One file inside a package of the Python package index."""

    package: str
    version: str
    member: str
    size_bytes: PositiveInt
    sha256: Sha256


class BuiltSource(_Row):
    """Files that are made on this machine: a published base, an adapter and a chat template of this program.

    builder: `module:function` of an edge.models.build.Builder, named as data because this room imports none.
    recipe: raised when a builder makes other files of the same inputs. adapter, chat_template: in this program's
    folder of models' parts.
    """

    kind: Literal["built"]
    base: WheelFile
    adapter: str
    chat_template: str
    builder: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    recipe: PositiveInt


class HubSource(_Row):
    """Repositories of the Hugging Face hub that may hold the GGUF files."""

    kind: Literal["hub"]
    repos: Annotated[tuple[RepoName, ...], Field(min_length=1)]


class RecurrentShape(_Row):
    """The linear-attention layers of a hybrid model, in the words of GGUF's `<architecture>.ssm.*`.

    Layer i has full attention when (i + 1) % full_attention_interval == 0, and a recurrent state otherwise.
    """

    full_attention_interval: PositiveInt
    conv_kernel: PositiveInt
    state_size: PositiveInt
    group_count: PositiveInt
    time_step_rank: PositiveInt
    inner_size: PositiveInt

    @model_validator(mode="after")
    def _heads_fit(self) -> RecurrentShape:
        if self.inner_size != self.time_step_rank * self.state_size:
            raise ValueError("inner_size is not time_step_rank * state_size")
        return self


class ModelShape(_Row):
    """The numbers that a memory plan needs. file_bytes: by quantization, the size of the whole file."""

    architecture: Literal["llama", "qwen3", "qwen35"]
    n_layer: PositiveInt
    n_embd: PositiveInt
    n_ff: PositiveInt
    n_head: PositiveInt
    n_head_kv: PositiveInt
    head_dim: PositiveInt
    n_vocab: PositiveInt
    n_ctx_train: PositiveInt
    tied_embeddings: bool
    file_bytes: dict[str, PositiveInt]
    recurrent: RecurrentShape | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> ModelShape:
        if self.n_head % self.n_head_kv:
            raise ValueError(f"n_head {self.n_head} is not a multiple of n_head_kv {self.n_head_kv}")
        if (self.architecture == "qwen35") != (self.recurrent is not None):
            raise ValueError("qwen35 needs [recurrent], the other architectures have none")
        return self


class ModelEntry(_Row):
    """One known model."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    description: str
    license: str
    shape: ModelShape
    n_ctx_tuned: PositiveInt
    temperature: Annotated[float, Field(ge=0)]
    quantizations: Annotated[tuple[str, ...], Field(min_length=1)]
    sources: Annotated[
        tuple[Annotated[BuiltSource | HubSource, Field(discriminator="kind")], ...], Field(min_length=1)
    ]
    chat_template: Literal["hermes"] | None = None
    default_system: str = ""

    @property
    def architecture(self) -> str:
        """GGUF's `general.architecture`."""
        return self.shape.architecture

    @model_validator(mode="after")
    def _is_consistent(self) -> ModelEntry:
        if self.n_ctx_tuned > self.shape.n_ctx_train:
            raise ValueError(f"n_ctx_tuned {self.n_ctx_tuned} is above n_ctx_train {self.shape.n_ctx_train}")
        if unknown := set(self.quantizations) - set(self.shape.file_bytes):
            raise ValueError(f"the shape has no file_bytes for {min(unknown)}")
        return self


class _Catalogue(_Row):
    models: tuple[ModelEntry, ...]

    @model_validator(mode="before")
    @classmethod
    def _put_shapes_in(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Models name their shape; here each gets it."""
        shapes = raw.get("shapes", {})
        if missing := {row.get("shape") for row in raw["models"]} - set(shapes):
            raise ValueError(f"there is no shape {min(map(str, missing))!r}")
        return {"models": [row | {"shape": shapes[row["shape"]]} for row in raw["models"]]}

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: tuple[ModelEntry, ...]) -> tuple[ModelEntry, ...]:
        if len({entry.name for entry in models}) != len(models):
            raise ValueError("two models have the same name")
        return models


def parse_catalogue(text: str) -> dict[str, ModelEntry]:
    """The models of a catalogue in TOML, by name. Raises pydantic's ValidationError."""
    return {entry.name: entry for entry in _Catalogue.model_validate(tomllib.loads(text)).models}


@functools.cache
def catalogue() -> dict[str, ModelEntry]:
    """All known models by name, in the file's order."""
    return parse_catalogue(
        resources.files("edge.models").joinpath("catalogue.toml").read_text(encoding="utf-8")
    )
