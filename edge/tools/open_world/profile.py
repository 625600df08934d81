"""Tags, prompts and limits of the two phases, read from a TOML file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edge.errors import OpenWorldError

BUILT_IN = ("toolomni", "calls")
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Count = Annotated[int, Field(ge=1, le=1000)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tags(_Table):
    """Opening and closing mark of a search and of its result."""

    search: tuple[Text, Text]
    information: tuple[Text, Text]


class Prompts(_Table):
    """What the model is told; {top_k}, {max_rounds}, {names} and {unknown} are filled in where they are known."""

    retrieval: Text
    execution: Text
    no_result: Text
    last_round: Text
    no_rounds_left: Text
    invalid_action: Text
    empty_query: Text
    unknown_tools: Text
    nothing_found_yet: Text
    invalid_step: Text


class Finish(_Table):
    """The function that ends the second phase."""

    name: Text
    description: Text


class OpenWorldProfile(_Table):
    """Everything that is particular to one model; the file's comments say what each number bounds."""

    name: Text
    top_k: Count
    max_rounds: Count
    max_faults: Annotated[int, Field(ge=0, le=1000)]
    max_steps: Count
    max_observation_chars: Annotated[int, Field(ge=16)]
    max_document_chars: Annotated[int, Field(ge=16)]
    actions: Literal["marks", "calls"]
    fall_back_to_found: bool
    tags: Tags
    prompts: Prompts
    finish: Finish


def built_in(name: str) -> OpenWorldProfile:
    """toolomni: the profile of toolomni-qwen3-4b. calls: for models that were trained on tool calls alone."""
    text = resources.files("edge.tools").joinpath(f"data/{name}.toml").read_text(encoding="utf-8")
    return parse_profile(text, f"{name}.toml")


def profile_for(name: str | None, model: str) -> OpenWorldProfile:
    """The profile of this name, or of this file; without either the one that suits a model's name."""
    if name is None:
        name = "toolomni" if "toolomni" in model.lower() else "calls"
    return built_in(name) if name in BUILT_IN else read_profile(Path(name))


def read_profile(path: Path) -> OpenWorldProfile:
    """The profile of a file. Raises OpenWorldError naming file and key."""
    try:
        return parse_profile(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise OpenWorldError(f"the profile {path} cannot be read: {exc}") from None


def parse_profile(text: str, name: str) -> OpenWorldProfile:
    """The profile of a TOML text; `name` stands for the file in messages."""
    try:
        return OpenWorldProfile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise OpenWorldError(f"the profile {name} is not TOML: {exc}") from None
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OpenWorldError(f"the profile {name}: {where}: {first['msg'].lower()}") from None


def fill(prompt: str, **values: object) -> str:
    """The prompt with `{name}` replaced for each value; other braces are text."""
    for name, value in values.items():
        prompt = prompt.replace(f"{{{name}}}", str(value))
    return prompt
