"""Where a checkpoint is: a local folder, or a repository on the Hugging Face hub, fetched once and resumable."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.checkpoint import one_line
from convert.errors import CheckpointError

_REPO = re.compile(r"[\w.-]+/[\w.-]+")
# Weights, configuration, tokenizer, template, card. Pickled weights and images are never fetched.
_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "README.md"]


@dataclass(frozen=True, slots=True)
class Located:
    """folder: local. source: as named by the user, without a local path. revision: the hub's commit."""

    folder: Path
    source: str
    revision: str | None = None


def repository_name(reference: str) -> str:
    """The checkpoint's own name: the folder's, or the repository's without its owner."""
    folder = Path(reference)
    return folder.resolve().name if folder.exists() else reference.rpartition("/")[2]


def fetch_checkpoint(
    reference: str, *, revision: str | None = None, progress_bar: type[Any] | None = None
) -> Located:
    """The folder of `reference`; downloads a repository into the hub cache (HF_HOME, HF_TOKEN, ... are honoured).

    progress_bar: a tqdm class for huggingface_hub. Raises CheckpointError with the hub's reason.
    """
    folder = Path(reference)
    if folder.exists() or not _REPO.fullmatch(reference):
        if not folder.is_dir():
            raise CheckpointError(f"{reference} is neither a folder nor a repository name (user/repo)")
        return Located(folder, folder.resolve().name)
    from huggingface_hub import errors, snapshot_download

    # The HTTP client of huggingface_hub, whichever it is: a connection that breaks off raises its errors.
    http_error: type[Exception] = getattr(errors, "HTTPError", errors.HfHubHTTPError)
    try:
        path = snapshot_download(
            reference, revision=revision, allow_patterns=_PATTERNS, tqdm_class=progress_bar
        )
    except (http_error, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(f"{reference} cannot be fetched from the hub: {one_line(error)}") from error
    return Located(Path(path), reference, Path(path).name)
