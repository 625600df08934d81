"""GGUF files of the Hugging Face hub: what a repository has, and getting one of them.

HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import CatalogueError
from edge.models.download import OnBytes, Tell, download, patiently
from edge.models.files import GgufFile, choose_file, list_files, model_files
from edge.models.hub_errors import is_missing, status_of, translate

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def with_gguf_twin(repo: str) -> tuple[str, ...]:
    """The repository and its `-GGUF` companion, where quantized files often are."""
    return (repo,) if repo.lower().endswith("-gguf") else (repo, f"{repo}-GGUF")


def list_repo(repo: str) -> list[GgufFile] | None:
    """The models in a repository, with sizes; None when there is no such repository for this user.

    Raises CatalogueError for every other answer, and HubUnreachable for none.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        try:
            # Unlike the listing of a tree this is not tried six times over 23 s when there is no network.
            timeout_s = constants.HF_HUB_ETAG_TIMEOUT
            info = patiently(lambda: api.model_info(repo, files_metadata=True, timeout=timeout_s))
            found = [(file.rfilename, file.size) for file in info.siblings or ()]
        except Exception as exc:
            if is_missing(exc) or status_of(exc) != 404:
                raise
            found = _walk_tree(api, repo)  # a mirror that describes no repositories
    except Exception as exc:
        if is_missing(exc):
            return None
        raise translate(exc, repo) from exc
    return model_files(found)


def _walk_tree(api: HfApi, repo: str) -> list[tuple[str, int | None]]:
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo, recursive=True)
    return [(entry.path, entry.size) for entry in tree if isinstance(entry, RepoFile)]


def fetch_from_hub(
    repos: Sequence[str], wanted: str | None, preferred: Sequence[str], *, tell: Tell, on_bytes: OnBytes
) -> Path:
    """The path of the fitting file of the first repository that has one; downloads what of it is missing.

    Raises CatalogueError: no network, no such repository, no access, no or several fitting files, and what
    `download` raises.
    """
    seen: dict[str, list[GgufFile]] = {}
    for repo in repos:
        files = list_repo(repo)
        if files is None:
            continue
        chosen = choose_file(files, wanted, preferred, where=repo)
        if chosen is not None:
            return download(repo, chosen.path, tell=tell, on_bytes=on_bytes)
        seen[repo] = files
    raise CatalogueError(_nothing_fits(repos, seen, wanted))


def _nothing_fits(repos: Sequence[str], seen: dict[str, list[GgufFile]], wanted: str | None) -> str:
    from huggingface_hub import constants

    names = " and ".join(repos)
    if not seen:
        return (
            f"{names} {'is' if len(repos) == 1 else 'are'} not on {constants.ENDPOINT}, or private: "
            "check the name; a private repository needs HF_TOKEN"
        )
    there = "; ".join(f"{repo} has {list_files(files)}" for repo, files in seen.items())
    if wanted is not None:
        return f"there is no {wanted} file: {there}"
    if not any(seen.values()):
        return f"there is nothing to run: {there}; smoltools-edge convert makes GGUF files of a checkpoint"
    return f"which file is meant is not clear: {there}; name one: {next(r for r in seen if seen[r])}:QUANT"
