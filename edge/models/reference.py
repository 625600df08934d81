"""What a user's REF means: a file, a name, or a repository. Nothing is opened or fetched here."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from edge.errors import CatalogueError
from edge.models.catalogue import ModelEntry, catalogue
from edge.models.folders import models_dir

_REPO = re.compile(
    r"(?:(?:https://)?(?:hf|huggingface)\.co/)?([\w.-]{1,96}/[\w.-]{1,96}?)"
    r"(?::([\w.-]+|[^:\n\0]+\.gguf))?",
    re.IGNORECASE,
)
_NAME = re.compile(r"\w[\w.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user's REF means. Exactly one of path, entry, folder and repo is set.

    folder: a model of the user's own in this program's model folder.
    quantization: as the user wrote it; also a file's name, for repositories.
    """

    text: str
    path: Path | None = None
    entry: ModelEntry | None = None
    folder: Path | None = None
    repo: str | None = None
    quantization: str | None = None


def parse_reference(ref: str) -> Reference:
    """Reads a REF: a path to a .gguf file, a name (with :QUANT), or user/repo[:QUANT].

    Raises CatalogueError when it is none of them.
    """
    if not ref.strip():
        raise CatalogueError(f"the model reference is empty; known models are {', '.join(catalogue())}")
    name, colon, quantization = ref.partition(":")
    if not (colon and not quantization):
        if entry := catalogue().get(name.lower()):
            return Reference(ref, entry=entry, quantization=quantization or None)
        if _NAME.fullmatch(name) and (models_dir() / name).is_dir():
            return Reference(ref, folder=models_dir() / name, quantization=quantization or None)
    repo = _REPO.fullmatch(ref)
    is_file_of_repo = repo is not None and repo[2] is not None and not _exists(ref)
    if not is_file_of_repo and _looks_like_path(ref):
        return Reference(ref, path=_expand(ref))
    if repo is not None:
        return Reference(ref, repo=repo[1], quantization=repo[2])
    raise CatalogueError(_explain(ref, name))


def _expand(ref: str) -> Path:
    try:
        return Path(ref).expanduser()
    except RuntimeError:  # ~ of a user that there is not
        return Path(ref)


def _exists(ref: str) -> bool:
    try:
        return _expand(ref).exists()
    except (OSError, ValueError):  # a name too long, a null character
        return False


def _looks_like_path(ref: str) -> bool:
    return _exists(ref) or ref.lower().endswith(".gguf") or ref.startswith(("/", "./", "../", "~"))


def _explain(ref: str, name: str) -> str:
    shown = ref if len(ref) <= 80 and ref.isprintable() else ascii(ref[:40])
    close = difflib.get_close_matches(name.lower(), catalogue(), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return (
        f"no model is called {shown!r}; {hint}known are {', '.join(catalogue())}; "
        "a path to a .gguf file and user/repo[:QUANT] are allowed too"
    )
