"""GGUF files of the Hugging Face hub, in the hub's own cache.

HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edge.errors import CatalogueError

DEFAULT_QUANTIZATIONS = ("Q4_K_M", "Q8_0", "BF16", "F16")


def choose_file(files: Iterable[str], quantization: str | None, preferred: Sequence[str]) -> str | None:
    """The .gguf among `files` for the quantization asked for, or the first preferred one that is there.

    The quantization is the end of the name, in any case: `name-q4_k_m.gguf`, `name.Q4_K_M.gguf`.
    """
    ggufs = sorted(f for f in files if f.lower().endswith(".gguf"))
    for wanted in [quantization] if quantization else [*preferred, *DEFAULT_QUANTIZATIONS]:
        pattern = re.compile(rf"(^|[-._/]){re.escape(wanted)}\.gguf$", re.IGNORECASE)
        for file in ggufs:
            if pattern.search(file):
                return file
    return ggufs[0] if len(ggufs) == 1 and quantization is None else None


def find_cached(repos: Sequence[str], quantization: str | None, preferred: Sequence[str]) -> Path | None:
    """A fitting file in the hub's cache, without any request."""
    from huggingface_hub import constants

    for repo in repos:
        snapshots = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots"
        found = {str(path.relative_to(snapshots)): path for path in sorted(snapshots.glob("*/**/*.gguf"))}
        chosen = choose_file(found, quantization, preferred)
        if chosen is not None:
            return found[chosen]
    return None


def fetch_from_hub(
    repos: Sequence[str], quantization: str | None, preferred: Sequence[str], progress: Callable[[str], None]
) -> Path:
    """Downloads the fitting file of the first repository that has one; resumes what was begun.

    Raises CatalogueError: no network, no such repository, no access, no fitting file (listing those there are).
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError

    seen: list[str] = []
    for repo in repos:
        try:
            files = HfApi().list_repo_files(repo)
        except RepositoryNotFoundError:
            continue
        except Exception as exc:
            raise _unreachable(repo, exc) from exc
        chosen = choose_file(files, quantization, preferred)
        if chosen is not None:
            progress(f"fetching {chosen} of {repo}")
            try:
                return Path(hf_hub_download(repo, chosen))
            except Exception as exc:
                raise _unreachable(repo, exc) from exc
        seen += [f for f in files if f.lower().endswith(".gguf")]
    wanted = f"a {quantization} file" if quantization else "a .gguf file"
    there = f"there are {', '.join(seen)}" if seen else "there is no .gguf file"
    raise CatalogueError(
        f"{' and '.join(repos)} on the hub: {wanted} was not found, {there}; "
        "a private repository needs HF_TOKEN"
    )


def _unreachable(repo: str, exc: Exception) -> CatalogueError:
    reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    return CatalogueError(
        f"{repo} could not be fetched from the hub: {reason}; check the network, HF_ENDPOINT and HF_HUB_OFFLINE, "
        "or give a .gguf file with --model"
    )
