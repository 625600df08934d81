"""What huggingface_hub and its HTTP client raise, in one line each. The only place that knows their classes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from edge.errors import CatalogueError, HubUnreachable


def http_error() -> type[Exception]:
    """The base class of the HTTP client that huggingface_hub uses: httpx's or httpx2's, by its version."""
    from huggingface_hub import errors

    found: type[Exception] = getattr(errors, "HTTPError", errors.HfHubHTTPError)
    return found


def status_of(exc: Exception) -> int | None:
    """The HTTP status of an answer that was raised as an error; None when there was no answer."""
    return getattr(getattr(exc, "response", None), "status_code", None)


def is_missing(exc: Exception) -> bool:
    """Whether the hub says that there is no such repository, or none that this user may know of."""
    from huggingface_hub import errors, get_token

    if isinstance(exc, errors.GatedRepoError):
        return False
    # The hub answers 401 to the nameless for what does not exist, too; huggingface_hub knows that of https only.
    return isinstance(exc, errors.RepositoryNotFoundError) or (status_of(exc) == 401 and get_token() is None)


def translate(exc: Exception, repo: str) -> CatalogueError:
    """The error to show for what a call of huggingface_hub raised about `repo`."""
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
    if isinstance(exc, CatalogueError):
        return exc
    if isinstance(exc, errors.OfflineModeIsEnabled):
        return HubUnreachable(
            f"HF_HUB_OFFLINE is set, so {repo} cannot be fetched; unset it, or give a .gguf file"
        )
    if isinstance(exc, errors.HFValidationError):
        return CatalogueError(f"{repo!r} is not a repository's name; user/repo[:QUANT] is expected")
    status = status_of(exc)
    if status is not None:
        return CatalogueError(_refusal(exc, status, repo, endpoint))
    if isinstance(exc, errors.FileMetadataError | ValueError | KeyError | TypeError | AttributeError):
        return CatalogueError(
            f"{endpoint} does not answer like a hub ({_one_line(exc)}); check HF_ENDPOINT and the network"
        )
    if isinstance(exc, http_error()):
        reason = _one_line(exc)
        return HubUnreachable(
            f"{urlsplit(endpoint).netloc or endpoint} cannot be reached for {repo}: {reason}; "
            "check the network and HF_ENDPOINT, or give a .gguf file"
        )
    return CatalogueError(f"{repo} cannot be fetched: {_one_line(exc)}")


def _refusal(exc: Exception, status: int, repo: str, endpoint: str) -> str:
    from huggingface_hub import errors

    if isinstance(exc, errors.GatedRepoError):
        return (
            f"{repo} is gated ({status}): accept its terms at {endpoint}/{repo} "
            "and give that account's token in HF_TOKEN"
        )
    if is_missing(exc):
        return (
            f"{repo} is not on {endpoint} ({status}), or it is private: check the name; "
            "a private repository needs HF_TOKEN"
        )
    if isinstance(exc, errors.EntryNotFoundError | errors.RevisionNotFoundError):
        return f"{repo} does not have that file any more ({status}); try again"
    if status == 401:
        return f"{endpoint} does not accept the token for {repo} (401); check HF_TOKEN or log in again"
    if status == 403:
        return f"{endpoint} forbids access to {repo} (403): {_said(exc)}; check what the token in HF_TOKEN allows"
    if status == 429:
        return f"{endpoint} has had too many requests from here (429); wait some minutes, or give HF_TOKEN"
    return f"{endpoint} answers {status} for {repo}: {_said(exc)}; try again later"


def _said(exc: Any) -> str:  # noqa: ANN401 - huggingface_hub's error, whichever
    """The server's own words."""
    message = str(getattr(exc, "server_message", None) or getattr(exc.response, "reason_phrase", ""))
    return (message.strip().splitlines() or ["no reason given"])[0][:200]


def _one_line(exc: Exception) -> str:
    lines = str(exc).strip().splitlines()
    return f"{lines[0][:200]}" if lines else type(exc).__name__
